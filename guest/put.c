/* put: a whole file under its name at once, or nothing. */
#include "ussy.h"
#include <limits.h>

static bool receive(int conn, int fd, uint64_t size) {
    static char part[256 << 10];
    while (size) {
        ssize_t n = read(conn, part, size < sizeof part ? size : sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EPIPE;
        if (n <= 0 || !write_whole(fd, part, n))
            return false;
        size -= n;
    }
    return true;
}

static bool sync_folder(char *path) {
    char *slash = strrchr(path, '/');
    slash[slash == path] = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && !fsync(fd);
}

void stream_put(int conn, struct pairs p) {
    const char *path = pairs_get(&p, "path", "");
    char part[4096], *mode_end;
    long mode = strtol(pairs_get(&p, "mode", "644"), &mode_end, 8), size = pairs_number(&p, "size", -1, LONG_MAX - 9);
    long uid = pairs_number(&p, "uid", 0, UINT32_MAX - 1), gid = pairs_number(&p, "gid", 0, UINT32_MAX - 1);
    bool named = *path == '/' && path[strlen(path) - 1] != '/';
    if (!named || size < 0 || uid < 0 || gid < 0 || *mode_end || mode < 0 || mode > 07777)
        reply_error(conn, "bad_request", "a put needs an absolute path and a size");
    if (snprintf(part, sizeof part, "%s.ussy-XXXXXX", path) >= (int)sizeof part)
        reply_error(conn, "bad_request", "the path is too long");
    int fd = mkostemp(part, O_CLOEXEC);
    if (fd < 0)
        reply_errno(conn, path);
    reply_ok(conn, NULL);
    bool good = receive(conn, fd, size) && (state.uid || !fchown(fd, uid, gid)) && !fchmod(fd, mode) && !fsync(fd) &&
                !rename(part, path);
    if (!good) {
        int error = errno;
        unlink(part);
        errno = error;
        reply_errno(conn, path);
    }
    if (!sync_folder(part))
        reply_errno(conn, path);
    reply_ok(conn, NULL);
    _exit(0);
}
