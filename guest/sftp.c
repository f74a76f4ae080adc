/* SFTP version 3, as the user, over the raw stream: one packet after another, replies sent in batches. */
#include "ussy.h"
#include <dirent.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

enum {
    INIT = 1, VERSION_IS, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR,
    RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK, STATUS = 101, HANDLE, DATA, NAME, ATTRS, EXTENDED = 200, EXTENDED_REPLY,
};
enum { IS_OK, IS_EOF, NO_FILE, DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 8 };
enum { HAS_SIZE = 1, HAS_OWNER = 2, HAS_MODE = 4, HAS_TIMES = 8 };
enum { MAX_PACKET = (256 << 10) + 1024, MAX_READ = 256 << 10, MAX_HANDLES = 256, NAMES_AT_ONCE = 100, MAX_NAME = 1024 };

struct attrs { uint32_t flags, uid, gid, mode, atime, mtime; uint64_t size; };
static struct { int fd; DIR *dir; } handles[MAX_HANDLES];
static unsigned char in[4 + MAX_PACKET], out[2 * MAX_PACKET];
static size_t out_len, packet;      /* bytes waiting to be sent; start of the packet being written */
static const unsigned char *at, *end;
static bool broken;                 /* the request is shorter than it says */
static uint32_t id;
static int conn;
static const struct passwd *owner;

static uint32_t take32(void) {
    if (end - at < 4) {
        broken = true;
        return 0;
    }
    at += 4;
    return get32(at - 4);
}

static uint64_t take64(void) {
    uint64_t high = take32();
    return high << 32 | take32();
}

static const unsigned char *take_bytes(size_t *len) {
    *len = take32();
    if ((size_t)(end - at) < *len)
        broken = true, *len = 0;
    at += *len;
    return at - *len;
}

static char *take_path(char *to) {
    size_t len;
    const unsigned char *from = take_bytes(&len);
    if (len >= PATH_MAX || memchr(from, 0, len))
        broken = true, len = 0;
    memcpy(to, from, len);
    to[len] = 0;
    return len ? to : strcpy(to, ".");
}

static struct attrs take_attrs(void) {
    struct attrs a = {.flags = take32()};
    if (a.flags & HAS_SIZE)
        a.size = take64();
    if (a.flags & HAS_OWNER)
        a.uid = take32(), a.gid = take32();
    if (a.flags & HAS_MODE)
        a.mode = take32() & 07777;
    if (a.flags & HAS_TIMES)
        a.atime = take32(), a.mtime = take32();
    return a;
}

static void give32(uint32_t n) { put32(out + out_len, n), out_len += 4; }
static void give64(uint64_t n) { give32(n >> 32), give32(n); }

static void give_bytes(const void *data, size_t len) {
    give32(len);
    memcpy(out + out_len, data, len);
    out_len += len;
}

static void give_text(const char *text) { give_bytes(text, strlen(text)); }

static void begin(int type) {
    packet = out_len;
    out_len += 4;
    out[out_len++] = type;
    give32(id);
}

static void finish(void) { put32(out + packet, out_len - packet - 4); }

static void status(uint32_t code, const char *text) {
    begin(STATUS);
    give32(code);
    give_text(text);
    give_text("en");
    finish();
}

static void result(bool good) {
    int e = errno;
    uint32_t code = e == ENOENT || e == ENOTDIR ? NO_FILE : e == EACCES || e == EPERM ? DENIED : FAILURE;
    good ? status(IS_OK, "OK") : status(code, strerror(e));
}

static void give_attrs(const struct stat *s) {
    give32(HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES);
    give64(s->st_size);
    give32(s->st_uid), give32(s->st_gid), give32(s->st_mode);
    give32(s->st_atime), give32(s->st_mtime);
}

static void stat_reply(int failed, const struct stat *s) {
    if (failed) {
        result(false);
        return;
    }
    begin(ATTRS);
    give_attrs(s);
    finish();
}

static void name_reply(const char *name) {
    begin(NAME);
    give32(1);
    give_text(name);
    give_text(name);
    give32(0);
    finish();
}

static int new_handle(int fd, DIR *dir) {
    for (int i = 0; i < MAX_HANDLES; i++)
        if (handles[i].fd < 0) {
            handles[i].fd = fd, handles[i].dir = dir;
            return i;
        }
    dir ? closedir(dir) : close(fd);
    errno = EMFILE;
    return -1;
}

static int take_handle(void) {
    size_t len;
    const unsigned char *h = take_bytes(&len);
    uint32_t number = len == 4 ? get32(h) : MAX_HANDLES;
    errno = EBADF;
    return number < MAX_HANDLES && handles[number].fd >= 0 ? (int)number : -1;
}

static int take_fd(void) {
    int h = take_handle();
    return h < 0 ? -1 : handles[h].fd;
}

static void handle_reply(int handle) {
    char name[4];
    if (handle < 0) {
        result(false);
        return;
    }
    put32(name, handle);
    begin(HANDLE);
    give_bytes(name, sizeof name);
    finish();
}

static void do_open(const char *path) {
    uint32_t wanted = take32();
    struct attrs a = take_attrs();
    int flags = (wanted & 3) == 3 ? O_RDWR : wanted & 2 ? O_WRONLY : O_RDONLY;
    flags |= (wanted & 4 ? O_APPEND : 0) | (wanted & 8 ? O_CREAT : 0) | (wanted & 16 ? O_TRUNC : 0) |
             (wanted & 32 ? O_EXCL : 0);
    int fd = broken ? -1 : open(path, flags | O_CLOEXEC | O_NOCTTY, a.flags & HAS_MODE ? a.mode : 0666);
    handle_reply(fd < 0 ? -1 : new_handle(fd, NULL));
}

static void do_close(int h) {
    bool good = h >= 0 && !(handles[h].dir ? closedir(handles[h].dir) : close(handles[h].fd));
    if (h >= 0)
        handles[h].fd = -1, handles[h].dir = NULL;
    result(good);
}

static void do_read(int fd) {
    uint64_t offset = take64();
    uint32_t len = take32();
    begin(DATA);
    ssize_t n = pread(fd, out + out_len + 4, len < MAX_READ ? len : MAX_READ, offset);
    if (n > 0) {
        give32(n);
        out_len += n;
        finish();
        return;
    }
    out_len = packet;
    n ? result(false) : status(IS_EOF, "end of file");
}

static void do_write(int fd) {
    uint64_t offset = take64();
    size_t len;
    const unsigned char *data = take_bytes(&len);
    ssize_t n = 0;
    for (size_t done = 0; done < len && !broken && n >= 0; done += n > 0 ? n : 0)
        n = pwrite(fd, data + done, len - done, offset + done);
    result(n >= 0);
}

static void long_name(char *to, size_t len, const char *name, const struct stat *s) {
    static const char kinds[] = "?pc?d?b?-?l?s???";
    char mode[11] = "?rwxrwxrwx", when[16];
    struct tm t;
    mode[0] = kinds[(s->st_mode & S_IFMT) >> 12];
    for (int i = 0; i < 9; i++)
        if (!(s->st_mode & (0400 >> i)))
            mode[1 + i] = '-';
    strftime(when, sizeof when, "%b %e %H:%M", gmtime_r(&s->st_mtime, &t));
    snprintf(to, len, "%s %4lu %-8u %-8u %8lld %s %s", mode, (unsigned long)s->st_nlink, s->st_uid, s->st_gid,
             (long long)s->st_size, when, name);
}

static void do_readdir(int h) {
    DIR *dir = h < 0 ? NULL : handles[h].dir;
    struct dirent *e;
    uint32_t count = 0;
    if (!dir) {
        result(false);
        return;
    }
    begin(NAME);
    size_t counted = out_len;
    for (give32(0); count < NAMES_AT_ONCE && (e = readdir(dir));) {
        struct stat s;
        char line[MAX_NAME];
        if (fstatat(dirfd(dir), e->d_name, &s, AT_SYMLINK_NOFOLLOW))
            continue;
        long_name(line, sizeof line, e->d_name, &s);
        give_text(e->d_name);
        give_text(line);
        give_attrs(&s);
        count++;
    }
    put32(out + counted, count);
    finish();
    if (!count)
        out_len = packet, status(IS_EOF, "end of folder");
}

static bool set_attrs(const char *path, int fd, const struct attrs *a) {
    struct timespec times[2] = {{a->atime, 0}, {a->mtime, 0}};
    bool good = !(a->flags & HAS_SIZE) || !(path ? truncate(path, a->size) : ftruncate(fd, a->size));
    if (good && a->flags & HAS_MODE)
        good = !(path ? chmod(path, a->mode) : fchmod(fd, a->mode));
    if (good && a->flags & HAS_TIMES)
        good = !(path ? utimensat(AT_FDCWD, path, times, 0) : futimens(fd, times));
    if (good && a->flags & HAS_OWNER)
        good = !(path ? chown(path, a->uid, a->gid) : fchown(fd, a->uid, a->gid));
    return good;
}

/* The absolute path; its last part need not exist yet. */
static void do_realpath(char *path) {
    char whole[PATH_MAX], full[2 * PATH_MAX], *slash = strrchr(path, '/');
    if (realpath(path, whole)) {
        name_reply(whole);
        return;
    }
    char *name = slash ? slash + 1 : path;
    char *folder = !slash ? "." : slash == path ? "/" : (*slash = 0, path);
    if (errno != ENOENT || !realpath(folder, whole)) {
        result(false);
        return;
    }
    snprintf(full, sizeof full, "%s/%s", strcmp(whole, "/") ? whole : "", name);
    name_reply(full);
}

static void do_expand(const char *path) {
    char home[2 * PATH_MAX];
    bool tilde = path[0] == '~' && (!path[1] || path[1] == '/');
    snprintf(home, sizeof home, "%s%s", tilde ? owner->pw_dir : "", tilde ? path + 1 : path);
    home[PATH_MAX - 1] = 0;
    do_realpath(home);
}

static void do_statvfs(int failed, const struct statvfs *v) {
    if (failed) {
        result(false);
        return;
    }
    begin(EXTENDED_REPLY);
    uint64_t numbers[] = {v->f_bsize, v->f_frsize, v->f_blocks, v->f_bfree, v->f_bavail, v->f_files, v->f_ffree,
                          v->f_favail, v->f_fsid, v->f_flag & 3 /* read-only, nosuid */, v->f_namemax};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        give64(numbers[i]);
    finish();
}

static void do_limits(void) {
    begin(EXTENDED_REPLY);
    give64(MAX_PACKET), give64(MAX_READ), give64(MAX_READ), give64(MAX_HANDLES);
    finish();
}

static bool rename_new(const char *from, const char *to) {
    return !syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1 /* RENAME_NOREPLACE */);
}

static void extended(char *a, char *b) {
    char name[PATH_MAX];
    struct statvfs v;
    take_path(name);
    if (!strcmp(name, "posix-rename@openssh.com"))
        take_path(a), take_path(b), result(!broken && !rename(a, b));
    else if (!strcmp(name, "hardlink@openssh.com"))
        take_path(a), take_path(b), result(!broken && !link(a, b));
    else if (!strcmp(name, "statvfs@openssh.com"))
        do_statvfs(statvfs(take_path(a), &v), &v);
    else if (!strcmp(name, "fsync@openssh.com"))
        result(!fsync(take_fd()));
    else if (!strcmp(name, "expand-path@openssh.com"))
        do_expand(take_path(a));
    else if (!strcmp(name, "limits@openssh.com"))
        do_limits();
    else
        status(UNSUPPORTED, "unknown extension");
}

static void answer_init(void) {
    static const char *const known[] = {"posix-rename", "1", "statvfs", "2", "hardlink", "1", "fsync", "1",
                                        "expand-path", "1", "limits", "1"};
    id = 3; /* where other replies have their id, this one has the version */
    begin(VERSION_IS);
    for (size_t i = 0; i < sizeof known / sizeof *known; i += 2) {
        char name[48];
        snprintf(name, sizeof name, "%s@openssh.com", known[i]);
        give_text(name);
        give_text(known[i + 1]);
    }
    finish();
}

static void answer(int type) {
    static char a[PATH_MAX], b[PATH_MAX];
    struct stat s;
    struct attrs set;
    ssize_t n;
    DIR *dir;
    int fd;
    errno = EINVAL;
    switch (type) {
    case OPEN: do_open(take_path(a)); break;
    case CLOSE: do_close(take_handle()); break;
    case READ: do_read(take_fd()); break;
    case WRITE: do_write(take_fd()); break;
    case LSTAT: stat_reply(lstat(take_path(a), &s), &s); break;
    case STAT: stat_reply(stat(take_path(a), &s), &s); break;
    case FSTAT: stat_reply(fstat(take_fd(), &s), &s); break;
    case SETSTAT: take_path(a), set = take_attrs(), result(!broken && set_attrs(a, -1, &set)); break;
    case FSETSTAT: fd = take_fd(), set = take_attrs(), result(!broken && set_attrs(NULL, fd, &set)); break;
    case OPENDIR: dir = opendir(take_path(a)), handle_reply(dir ? new_handle(dirfd(dir), dir) : -1); break;
    case READDIR: do_readdir(take_handle()); break;
    case REMOVE: result(!unlink(take_path(a))); break;
    case MKDIR:
        take_path(a), set = take_attrs();
        result(!broken && !mkdir(a, set.flags & HAS_MODE ? set.mode : 0777));
        break;
    case RMDIR: result(!rmdir(take_path(a))); break;
    case REALPATH: do_realpath(take_path(a)); break;
    case RENAME: take_path(a), take_path(b), result(!broken && rename_new(a, b)); break;
    case READLINK:
        n = readlink(take_path(a), b, sizeof b - 1);
        b[n > 0 ? n : 0] = 0;
        n < 0 ? result(false) : name_reply(b);
        break;
    case SYMLINK: take_path(a), take_path(b), result(!broken && !symlink(a, b)); break;
    case EXTENDED: extended(a, b); break;
    default: status(UNSUPPORTED, "unknown request");
    }
}

static void flush(void) {
    if (out_len && !write_whole(conn, out, out_len))
        _exit(0);
    out_len = 0;
}

/* One whole packet at `in`. */
static void perform(size_t len) {
    int type = in[4];
    at = in + 5, end = in + 4 + len, broken = false;
    size_t before = out_len;
    if (type == INIT) {
        answer_init();
        return;
    }
    id = take32();
    answer(type);
    if (broken)
        out_len = before, status(BAD_MESSAGE, "a request is cut short");
}

void stream_sftp(int connection, struct pairs p) {
    conn = connection, owner = user_find(conn, p);
    for (int i = 0; i < MAX_HANDLES; i++)
        handles[i].fd = -1;
    umask(022);
    if (!user_become(owner))
        reply_errno(conn, "user");
    if (chdir(owner->pw_dir) && chdir("/"))
        reply_errno(conn, "home");
    reply_ok(conn, NULL);
    for (size_t got = 0;;) {
        size_t len = got >= 4 ? get32(in) : 0;
        if (got >= 4 && (len < 1 || len > MAX_PACKET))
            _exit(0);
        if (got >= 4 && got >= 4 + len) {
            if (sizeof out - out_len < MAX_PACKET)
                flush();
            perform(len);
            memmove(in, in + 4 + len, got -= 4 + len);
            continue;
        }
        flush();
        ssize_t n = read(conn, in + got, sizeof in - got);
        if (n <= 0 && errno != EINTR)
            _exit(0);
        got += n > 0 ? n : 0;
    }
}
