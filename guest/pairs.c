/* Pairs, big-endian numbers, whole reads and writes. */
#include "ussy.h"
#include <stdarg.h>

bool pairs_check(struct pairs *p, const char *data, size_t len) {
    size_t zeros = 0;
    for (size_t i = 0; i < len; i++)
        zeros += data[i] == 0;
    *p = (struct pairs){data, data + len};
    return (len == 0 || data[len - 1] == 0) && zeros % 2 == 0 && zeros <= 2 * MAX_PAIRS;
}

bool pairs_next(struct pairs *p, const char **key, const char **value) {
    if (p->at >= p->end)
        return false;
    *key = p->at;
    *value = *key + strlen(*key) + 1;
    p->at = *value + strlen(*value) + 1;
    return true;
}

const char *pairs_get(const struct pairs *p, const char *key, const char *otherwise) {
    struct pairs each = *p;
    for (const char *k, *v; pairs_next(&each, &k, &v);)
        if (!strcmp(k, key))
            return v;
    return otherwise;
}

/* A decimal number from 0 to `most`; -1 when it is there and is not one. */
long pairs_number(const struct pairs *p, const char *key, long otherwise, long most) {
    const char *text = pairs_get(p, key, NULL);
    if (!text)
        return otherwise;
    long n = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || n > (most - (*c - '0')) / 10)
            return -1;
        n = n * 10 + (*c - '0');
    }
    return *text ? n : -1;
}

bool out_open(struct out *o) {
    o->data = NULL;
    o->file = open_memstream(&o->data, &o->len);
    return o->file != NULL;
}

void out_add(struct out *o, const char *key, const char *format, ...) {
    va_list args;
    fwrite(key, 1, strlen(key) + 1, o->file);
    va_start(args, format);
    vfprintf(o->file, format, args);
    va_end(args);
    fputc(0, o->file);
}

bool out_close(struct out *o) {
    bool bad = ferror(o->file);
    return !fclose(o->file) && !bad;
}

uint32_t get32(const void *at) {
    const unsigned char *b = at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

void put32(void *at, uint32_t n) {
    unsigned char *b = at;
    b[0] = n >> 24, b[1] = n >> 16, b[2] = n >> 8, b[3] = n;
}

bool read_whole(int fd, void *to, size_t len) {
    for (char *at = to; len;) {
        ssize_t n = read(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n, len -= n;
    }
    return true;
}

bool write_whole(int fd, const void *from, size_t len) {
    for (const char *at = from; len;) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        at += n, len -= n;
    }
    return true;
}

int64_t now_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *wire_code(int error) {
    switch (error) {
    case ENOENT: case ENOTDIR: return "no_file";
    case EACCES: case EPERM: case EROFS: return "denied";
    case ECONNREFUSED: return "refused";
    case ETIMEDOUT: return "timeout";
    case EHOSTUNREACH: case ENETUNREACH: case ENETDOWN: case EADDRNOTAVAIL: return "unreachable";
    case EADDRINUSE: return "in_use";
    default: return "failed";
    }
}

void kernel_log(const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    int fd = state.on_host || state.container ? dup(2) : open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    write_whole(fd, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
    close(fd);
}
