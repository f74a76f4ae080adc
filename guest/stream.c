/* One connection: authenticate, read the header, go to its verb. Also dial and the byte pump. */
#include "ussy.h"
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/uio.h>
#include <sys/un.h>

static void reply(int conn, const char *word, struct out *o) {
    char head[6];
    if (!out_close(o) || o->len > MAX_HEADER)
        _exit(1);
    memcpy(head, word, 2);
    put32(head + 2, o->len);
    struct iovec parts[2] = {{head, sizeof head}, {o->data, o->len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (sendmsg(conn, &message, MSG_NOSIGNAL) != (ssize_t)(sizeof head + o->len))
        _exit(1);
    free(o->data);
}

/* `fields` is closed by this; NULL for none. */
void reply_ok(int conn, struct out *fields) {
    struct out none;
    if (!fields && out_open(&none))
        fields = &none;
    if (!fields)
        _exit(1);
    reply(conn, "OK", fields);
}

/* Closing with bytes unread would reset the connection and lose our last words: read on, for a while. */
void finish_reading(int conn) {
    static char unread[16 << 10];
    shutdown(conn, SHUT_WR);
    alarm(HELLO_SECONDS);
    while (read(conn, unread, sizeof unread) > 0)
        ;
}

void reply_error(int conn, const char *code, const char *format, ...) {
    char message[200];
    struct out o;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!out_open(&o))
        _exit(1);
    out_add(&o, "code", "%s", code);
    out_add(&o, "message", "%s", message);
    reply(conn, "ER", &o);
    finish_reading(conn);
    _exit(0);
}

void reply_errno(int conn, const char *what) {
    int error = errno;
    reply_error(conn, wire_code(error), "%s: %s", what, strerror(error));
}

struct way { int from, to; size_t at, len; bool ended, done; char data[64 << 10]; };

static void fill(struct way *w) {
    ssize_t n = read(w->from, w->data, sizeof w->data);
    if (n > 0)
        w->at = 0, w->len = n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        w->ended = true;
}

static void empty(struct way *w) {
    ssize_t n = send(w->to, w->data + w->at, w->len, MSG_NOSIGNAL);
    if (n > 0)
        w->at += n, w->len -= n;
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
        w->len = 0, w->ended = true;
}

static void step(struct way *w, short from, short to) {
    if (!w->len && !w->ended && from)
        fill(w);
    if (w->len && (to || from))
        empty(w);
    if (!w->len && w->ended && !w->done) {
        shutdown(w->to, SHUT_WR);
        w->done = true;
    }
}

/* Copy both ways between two sockets, each direction closing on its own, then end. */
void pump(int a, int b) {
    static struct way ab, ba;
    ab.from = ba.to = a, ab.to = ba.from = b;
    fcntl(a, F_SETFL, O_NONBLOCK);
    fcntl(b, F_SETFL, O_NONBLOCK);
    while (!ab.done || !ba.done) {
        struct pollfd fds[2] = {{a, 0, 0}, {b, 0, 0}};
        fds[0].events = (ab.len || ab.ended ? 0 : POLLIN) | (ba.len ? POLLOUT : 0);
        fds[1].events = (ba.len || ba.ended ? 0 : POLLIN) | (ab.len ? POLLOUT : 0);
        for (int i = 0; i < 2; i++)
            if (!fds[i].events)
                fds[i].fd = -1; /* nothing wanted of it: its hang-up must not wake us over and over */
        poll(fds, 2, -1);
        step(&ab, fds[0].revents, fds[1].revents);
        step(&ba, fds[1].revents, fds[0].revents);
    }
    _exit(0);
}

/* A connected socket, or -1 with errno. */
static int connect_within(const struct sockaddr *to, socklen_t len, int64_t deadline) {
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
    if (fd < 0)
        return -1;
    if (connect(fd, to, len)) {
        int64_t left = deadline - now_ms(CLOCK_MONOTONIC);
        error = errno;
        if (error == EINPROGRESS || error == EAGAIN) {
            int ready = poll(&(struct pollfd){fd, POLLOUT, 0}, 1, left > 0 ? left : 0);
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
            error = ready == 1 ? error : ETIMEDOUT;
        }
    }
    if (!error)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

static int dial_unix(const char *path, int64_t deadline) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof at.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    return connect_within((void *)&at, sizeof at, deadline);
}

static int dial_name(const char *host, const char *port, int64_t deadline) {
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    int fd = -1;
    if (getaddrinfo(host, port, &want, &found)) {
        errno = EHOSTUNREACH;
        return -1;
    }
    for (struct addrinfo *each = found; each && fd < 0; each = each->ai_next)
        fd = connect_within(each->ai_addr, each->ai_addrlen, deadline);
    return fd;
}

/* The guest's own address, for programs that listen on nothing else. */
static int dial_device(const char *port, int64_t deadline) {
    struct ifaddrs *all = NULL;
    int fd = -1;
    errno = ECONNREFUSED;
    getifaddrs(&all);
    for (struct ifaddrs *each = all; each && fd < 0; each = each->ifa_next)
        if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET && !strcmp(each->ifa_name, "eth0")) {
            ((struct sockaddr_in *)each->ifa_addr)->sin_port = htons(atoi(port));
            fd = connect_within(each->ifa_addr, sizeof(struct sockaddr_in), deadline);
        }
    return fd;
}

void stream_dial(int conn, struct pairs p) {
    const char *path = pairs_get(&p, "path", NULL), *host = pairs_get(&p, "host", NULL);
    const char *port = pairs_get(&p, "port", "");
    int64_t deadline = now_ms(CLOCK_MONOTONIC) + CONNECT_MS;
    if (!path && pairs_number(&p, "port", 0, 65535) <= 0)
        reply_error(conn, "bad_request", "a port is 1 to 65535");
    if (pairs_get(&p, "user", NULL) && !user_become(user_find(conn, p)))
        reply_errno(conn, "user");
    alarm(3 * CONNECT_MS / 1000); /* name look-ups have no bound of their own */
    int fd = path ? dial_unix(path, deadline) : host ? dial_name(host, port, deadline) : -1;
    if (!path && !host) {
        fd = dial_name("127.0.0.1", port, deadline);
        fd = fd < 0 ? dial_name("::1", port, deadline) : fd;
        fd = fd < 0 ? dial_device(port, deadline) : fd;
    }
    alarm(0);
    if (fd < 0)
        reply_errno(conn, "dial");
    if (!path)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    reply_ok(conn, NULL);
    pump(conn, fd);
}

static bool secrets_equal(const char *a, const char *b) {
    unsigned char differ = 0;
    for (int i = 0; i < SECRET_LEN; i++)
        differ |= a[i] ^ b[i];
    return !differ;
}

static const struct { const char *verb; void (*serve)(int, struct pairs); } verbs[] = {
    {"dial", stream_dial}, {"exec", stream_exec}, {"sftp", stream_sftp},
    {"put", stream_put}, {"listen", stream_listen}, {"accept", stream_accept},
};

void stream_serve(int conn) {
    static char hello[6 + SECRET_LEN + 4], header[MAX_HEADER];
    struct pairs p;
    alarm(HELLO_SECONDS);
    if (!read_whole(conn, hello, sizeof hello) || memcmp(hello, "USSY1 ", 6))
        _exit(0);
    if (!state.configured || !secrets_equal(hello + 6, state.secret))
        reply_error(conn, "auth", "not the secret of this boot");
    size_t len = get32(hello + 6 + SECRET_LEN);
    if (len > MAX_HEADER)
        reply_error(conn, "bad_request", "a header has at most %d bytes", MAX_HEADER);
    if (!read_whole(conn, header, len))
        _exit(0);
    alarm(0);
    agent_authenticated();
    if (!pairs_check(&p, header, len))
        reply_error(conn, "bad_request", "not a sequence of pairs");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(pairs_get(&p, "verb", ""), verbs[i].verb))
            verbs[i].serve(conn, p);
    reply_error(conn, "bad_request", "unknown verb");
}
