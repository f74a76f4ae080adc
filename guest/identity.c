/* configure: make this machine the VM it is told to be. Every step may be repeated. */
#include "ussy.h"
#include <ctype.h>
#include <dirent.h>
#include <linux/fs.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/time.h>

#ifndef RNDRESEEDCRNG
#define RNDRESEEDCRNG _IO('R', 0x07)
#endif
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)
#define MARK "# ussycode"

static bool is_hex(const char *text, size_t len) {
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

static bool is_host_name(const char *name) {
    size_t len = strlen(name);
    return len > 0 && len < 64 && *name != '-' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len;
}

static bool is_env(const char *pair) {
    const char *c = pair;
    while (*c == '_' || isalpha((unsigned char)*c) || (c > pair && isdigit((unsigned char)*c)))
        c++;
    return c > pair && *c == '=';
}

static char *rooted(char *to, const char *path) {
    snprintf(to, 256, "%s%s", state.root, path);
    return to;
}

/* Replace a file at once; false when it cannot be written. */
bool replace_file(const char *path, mode_t mode, const char *data, size_t len) {
    char name[256], part[264];
    snprintf(part, sizeof part, "%s.ussy~", rooted(name, path));
    unlink(part); /* whatever lies there: to open a pipe would take for ever */
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return false;
    bool good = write_whole(fd, data, len) && !fchmod(fd, mode);
    close(fd);
    if (good && !rename(part, name))
        return true;
    unlink(part);
    return false;
}

static bool finish_file(struct out *o, const char *path) {
    bool good = out_close(o) && replace_file(path, 0644, o->data, o->len);
    free(o->data);
    return good;
}

/* First bytes of a file as text; NULL when it cannot be opened. Free it. */
static char *read_file(const char *path) {
    enum { MOST = 64 << 10 };
    char name[256], *text = NULL;
    int fd = open(rooted(name, path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    if ((text = calloc(1, MOST + 1)) && read(fd, text, MOST) < 0)
        *text = 0;
    close(fd);
    return text;
}

static bool seed_kernel(const char *hex) {
    struct { struct rand_pool_info info; unsigned char bytes[64]; } pool = {.info = {512, 64}};
    for (int i = 0; i < 64; i++)
        sscanf(hex + 2 * i, "%2hhx", &pool.bytes[i]);
    if (state.on_host || state.container)
        return true;
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    bool good = fd >= 0 && !ioctl(fd, RNDADDENTROPY, &pool) && !ioctl(fd, RNDRESEEDCRNG, 0);
    close(fd);
    return good;
}

enum { NEAR_MS = 100 };

/* A clock that is right is left alone: every step of it wakes whatever waits for a time of day. */
static bool set_clock(const char *text) {
    char *dot;
    struct timeval at = {.tv_sec = strtoll(text, &dot, 10)};
    at.tv_usec = *dot == '.' ? atoi(dot + 1) : 0;
    int64_t off = at.tv_sec * 1000LL + at.tv_usec / 1000 - now_ms(CLOCK_REALTIME);
    return state.on_host || state.container || (off > -NEAR_MS && off < NEAR_MS) || !settimeofday(&at, NULL);
}

static bool set_hosts(const char *host) {
    char *old = read_file("/etc/hosts"), *rest = old;
    struct out o;
    if (!out_open(&o))
        return false;
    if (!old)
        fputs("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", o.file);
    for (char *line; rest && (line = strsep(&rest, "\n"));)
        if (*line && !strstr(line, MARK))
            fprintf(o.file, "%s\n", line);
    fprintf(o.file, "127.0.1.1 %s " MARK "\n", host);
    free(old);
    return finish_file(&o, "/etc/hosts");
}

static bool set_host_name(const char *host) {
    char line[80];
    int len = snprintf(line, sizeof line, "%s\n", host);
    bool named = state.on_host || state.container || !sethostname(host, strlen(host));
    return replace_file("/etc/hostname", 0644, line, len) && set_hosts(host) && named;
}

/* The id that the disk came with is another machine's when it has just become this one's. */
static bool set_machine_id(const char *id, bool anew) {
    char *old = read_file("/etc/machine-id"), line[40], name[256];
    bool ours = anew || !old || !is_hex(strtok(old, "\n") ? old : "", 32) || !strcmp(old, NOBODY);
    struct stat bus;
    free(old);
    if (anew && !lstat(rooted(name, "/var/lib/dbus/machine-id"), &bus) && S_ISREG(bus.st_mode))
        unlink(name); /* dbus takes the other one then */
    snprintf(line, sizeof line, "%s\n", id);
    return !ours || replace_file("/etc/machine-id", 0444, line, 33);
}

static void make_folders(void) {
    static const char *const folders[] = {"/run", "/run/ussycode", "/run/systemd", "/run/systemd/system.conf.d",
                                          "/run/systemd/user.conf.d"};
    char name[256];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        mkdir(rooted(name, folders[i]), 0755);
}

/* What an init wants to find before it starts, and what says that it is nobody's yet. */
void identity_be_nobody(void) {
    make_folders();
    if (!set_host_name("localhost") || !set_machine_id(NOBODY, false))
        kernel_log("ussy: a template without a name: %s\n", strerror(errno));
}

/* A resolv.conf that a person wrote stays; an absent, empty or dangling one, or one of ours, does not. */
static bool set_resolver(struct pairs p) {
    char *old = read_file("/etc/resolv.conf"), name[256];
    bool theirs = old && *old && !strstr(old, MARK);
    struct out o;
    free(old);
    if (theirs || !out_open(&o))
        return theirs;
    fputs(MARK "\n", o.file);
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        if (!strcmp(k, "dns") && strspn(v, "0123456789abcdefABCDEF.:") == strlen(v))
            fprintf(o.file, "nameserver %s\n", v);
    unlink(rooted(name, "/etc/resolv.conf"));
    return finish_file(&o, "/etc/resolv.conf");
}

static void quote_shell(FILE *to, const char *value) {
    fputc('\'', to);
    for (; *value; value++)
        *value == '\'' ? fputs("'\\''", to) : fputc(*value, to);
    fputc('\'', to);
}

static void quote_systemd(FILE *to, const char *value) {
    for (; *value; value++) {
        if (*value == '\n')
            fputs("\\n", to);
        else if (*value == '%')
            fputs("%%", to);
        else
            fprintf(to, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    }
}

static void put_shell(FILE *to, const char *pair) {
    int name = strchr(pair, '=') - pair;
    fprintf(to, "export %.*s=", name, pair);
    quote_shell(to, pair + name + 1);
    fputc('\n', to);
}

static void put_systemd(FILE *to, const char *pair) {
    fputs("DefaultEnvironment=\"", to);
    quote_systemd(to, pair);
    fputs("\"\n", to);
}

/* pam_env's format has no way to write a line break: such a variable is left out there */
static void put_pam(FILE *to, const char *pair) {
    if (!strchr(pair, '\n'))
        fprintf(to, "%s\n", pair);
}

static bool env_file(const char *path, const char *head, void (*put)(FILE *, const char *)) {
    struct out o;
    if (!out_open(&o))
        return false;
    fputs(head, o.file);
    for (size_t at = 0; at < state.env_len; at += strlen(state.env + at) + 1)
        put(o.file, state.env + at);
    return finish_file(&o, path);
}

static bool keep_env(struct pairs p) {
    struct out o;
    if (!out_open(&o))
        return false;
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        if (!strcmp(k, "env"))
            fwrite(v, 1, strlen(v) + 1, o.file);
    if (!out_close(&o))
        return false;
    free(state.env);
    state.env = o.data, state.env_len = o.len;
    return true;
}

static bool set_env(struct pairs p) {
    static const char profile[] = "[ ! -r /run/ussycode/env ] || . /run/ussycode/env\n";
    char name[256];
    if (!keep_env(p) || !env_file("/run/ussycode/env", "", put_shell) ||
        !env_file("/run/ussycode/environment", "", put_pam) ||
        !env_file("/run/systemd/system.conf.d/50-ussycode.conf", "[Manager]\n", put_systemd) ||
        !env_file("/run/systemd/user.conf.d/50-ussycode.conf", "[Manager]\n", put_systemd))
        return false;
    return access(rooted(name, "/etc/profile.d"), F_OK) ||
           replace_file("/etc/profile.d/ussycode.sh", 0644, profile, strlen(profile));
}

/* Only the tiny init runs a service; it is told once, with the environment that it will have. */
static bool set_service(struct pairs p) {
    struct out o;
    if (state.on_host || !is_tiny_init() || !service_write(p, state.env, state.env_len, &o))
        return true;
    bool good = out_close(&o) && replace_file("/run/ussycode/service", 0600, o.data, o.len);
    free(o.data);
    return good && !kill(1, SIGHUP);
}

bool identity_keys(struct pairs p) {
    struct out o;
    if (!out_open(&o))
        return false;
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        if (!strcmp(k, "authorized_key") && !strchr(v, '\n'))
            fprintf(o.file, "%s\n", v);
    return finish_file(&o, "/run/ussycode/authorized_keys");
}

/* SSH host keys that came with the disk, and are another machine's too; whether there were any. */
static bool forget_host_keys(void) {
    char name[256];
    DIR *folder = opendir(rooted(name, "/etc/ssh"));
    bool found = false;
    for (struct dirent *e; folder && (e = readdir(folder));)
        found |= !strncmp(e->d_name, "ssh_host_", 9) && !unlinkat(dirfd(folder), e->d_name, 0);
    if (folder)
        closedir(folder);
    return found;
}

static bool set_host_keys(struct pairs p, bool anew) {
    bool good = true;
    if (anew && !forget_host_keys())
        return true; /* without a sshd, or with one that makes its keys itself */
    for (const char *k, *v; pairs_next(&p, &k, &v);) {
        const char *text = strchr(v, '\n');
        if (strcmp(k, "host_key") || !text || strncmp(v, "ssh_host_", 9))
            continue;
        char path[128];
        int len = text - v, ends = snprintf(path, sizeof path, "/etc/ssh/%.*s", len, v);
        bool safe = ends < (int)sizeof path && !memchr(v, '/', len);
        bool public = len > 4 && !strncmp(text - 4, ".pub", 4);
        good = safe && replace_file(path, public ? 0644 : 0600, text + 1, strlen(text + 1)) && good;
    }
    return good;
}

/* In a process of its own: the image's init need not wait for it. */
static bool grow(void) {
    enum { WORTH = 8 << 20, TRIES = 600, WAIT_NS = 100000000 };
    struct statvfs fs;
    uint64_t bytes = 0;
    int disk = open("/dev/vda", O_RDONLY | O_CLOEXEC);
    bool known = disk >= 0 && !ioctl(disk, BLKGETSIZE64, &bytes) && !statvfs("/", &fs);
    close(disk);
    if (!known || fs.f_frsize == 0 || bytes < fs.f_blocks * fs.f_frsize + WORTH || fork())
        return known;
    uint64_t blocks = bytes / fs.f_frsize;
    int root = open("/", O_RDONLY | O_CLOEXEC);
    int failed = ioctl(root, EXT4_IOC_RESIZE_FS, &blocks);
    for (int tries = 0; failed && errno == EBUSY && tries < TRIES; tries++) { /* an earlier growth goes on still */
        nanosleep(&(struct timespec){0, WAIT_NS}, NULL);
        failed = ioctl(root, EXT4_IOC_RESIZE_FS, &blocks);
    }
    if (failed)
        kernel_log("ussy: cannot grow the root file system: %s\n", strerror(errno));
    _exit(0);
}

static const char *unfit(struct pairs p) {
    if (!is_hex(pairs_get(&p, "secret", ""), SECRET_LEN))
        return "secret";
    if (!is_hex(pairs_get(&p, "seed", ""), 128))
        return "seed";
    if (!is_host_name(pairs_get(&p, "hostname", "")))
        return "hostname";
    if (!is_hex(pairs_get(&p, "machine_id", ""), 32))
        return "machine_id";
    if (strlen(pairs_get(&p, "login_user", "root")) >= sizeof state.login_user)
        return "login_user";
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        if (!strcmp(k, "env") && !is_env(v))
            return "env";
    return NULL;
}

static bool set_network(struct pairs p) {
    if (state.on_host)
        return true;
    bool good = state.container || net_configure("eth0", pairs_get(&p, "mac", ""), pairs_get(&p, "address", ""),
                              pairs_get(&p, "gateway", ""));
    const char *address6 = pairs_get(&p, "address6", "");
    if (good && *address6 && !state.container)
        good = net_configure6("eth0", address6, pairs_get(&p, "gateway6", ""));
    return good && (agent_port() || agent_listen(state.container ? NULL : "eth0", "0.0.0.0", STREAM_PORT) >= 0);
}

/* NULL when all is done, else an error code with `why` filled in. Goes on after a step that fails. */
const char *identity_configure(struct pairs p, char *why, size_t room) {
    const char *bad = unfit(p), *failed = NULL;
    bool anew = !strcmp(pairs_get(&p, "anew", "0"), "1");
    if (bad) {
        snprintf(why, room, "%s is malformed", bad);
        return "bad_request";
    }
#define DO(step, call) do { errno = 0; if (!(call) && !failed) { failed = step; \
        snprintf(why, room, "%s: %s", step, strerror(errno)); } } while (0)
    DO("seed", seed_kernel(pairs_get(&p, "seed", "")));
    DO("clock", set_clock(pairs_get(&p, "time", "")));
    make_folders();
    DO("hostname", set_host_name(pairs_get(&p, "hostname", "")));
    DO("machine-id", set_machine_id(pairs_get(&p, "machine_id", ""), anew));
    DO("resolver", set_resolver(p));
    DO("environment", set_env(p));
    DO("authorized keys", identity_keys(p));
    DO("host keys", set_host_keys(p, anew));
    strcpy(state.secret, pairs_get(&p, "secret", ""));
    strcpy(state.login_user, pairs_get(&p, "login_user", "root"));
    DO("network", set_network(p));
    if (!state.on_host && !state.container && !strcmp(pairs_get(&p, "grow", "0"), "1"))
        DO("grow", grow());
    if (!state.on_host)
        DO("become", settle_become());
    DO("service", set_service(p));
#undef DO
    state.configured = true;
    return failed ? "failed" : NULL;
}
