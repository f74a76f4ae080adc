/* listen: a socket inside the guest for the host; accept: one of its connections, as a stream of its own.
 * The listening process keeps accepted sockets; the accepting one fetches them over an abstract unix socket. */
#include "ussy.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

enum { ACCEPTED = 7, MAX_WAITING = 64, WAIT_MS = 10000, HEAD = 5 };
static struct { int fd; uint64_t id; int64_t until; } waiting[MAX_WAITING];
static struct sockaddr_un own;      /* the unix socket that is listened on; empty path for TCP */

static socklen_t shelf_name(struct sockaddr_un *at, pid_t pid) {
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    return offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(at->sun_path + 1, "ussy-listen-%d", pid);
}

static struct ucred peer_of(int fd) {
    struct ucred who = {.pid = 0, .uid = -1};
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &(socklen_t){sizeof who});
    return who;
}

static void end_listening(void) {
    if (*own.sun_path)
        unlink(own.sun_path);
    char *slash = strrchr(own.sun_path, '/');
    if (slash && !strncmp(own.sun_path, "/tmp/ussy-", 10)) {
        *slash = 0;
        rmdir(own.sun_path);
    }
    _exit(0);
}

static int listen_tcp(const char *host, const char *port, struct out *o) {
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    struct sockaddr_in6 at;
    errno = EADDRNOTAVAIL;
    if (getaddrinfo(*host ? host : "127.0.0.1", port, &want, &found))
        return -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 128) ||
        getsockname(fd, (void *)&at, &(socklen_t){sizeof at}))
        return -1;
    out_add(o, "port", "%d", ntohs(at.sin6_port)); /* at the same place in sockaddr_in */
    return fd;
}

static int listen_unix(const char *path, struct out *o) {
    own.sun_family = AF_UNIX;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char folder[] = "/tmp/ussy-XXXXXX";
    if (!*path && !mkdtemp(folder))
        return -1;
    int len = *path ? snprintf(own.sun_path, sizeof own.sun_path, "%s", path)
                    : snprintf(own.sun_path, sizeof own.sun_path, "%s/agent.%d", folder, getpid());
    mode_t before = umask(0177);
    errno = ENAMETOOLONG;
    if (len >= (int)sizeof own.sun_path || bind(fd, (void *)&own, sizeof own) || listen(fd, 128)) {
        *own.sun_path = 0; /* not ours to remove */
        return -1;
    }
    umask(before);
    out_add(o, "path", "%s", own.sun_path);
    return fd;
}

/* Where `accept` streams come to fetch sockets. Made as root, so that they can tell it from an impostor. */
static int open_shelf(void) {
    struct sockaddr_un at;
    socklen_t len = shelf_name(&at, getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(fd, (void *)&at, len) || listen(fd, 16) ? -1 : fd;
}

static void shelve(int conn, int listener) {
    static uint32_t count;
    unsigned char frame[HEAD + 8] = {ACCEPTED};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), slot = 0;
    if (fd < 0)
        return;
    while (slot < MAX_WAITING && waiting[slot].id)
        slot++;
    if (slot == MAX_WAITING) {
        close(fd);
        return;
    }
    waiting[slot].fd = fd, waiting[slot].until = now_ms(CLOCK_MONOTONIC) + WAIT_MS;
    waiting[slot].id = (uint64_t)getpid() << 32 | ++count;
    put32(frame + 1, 8);
    put32(frame + HEAD, getpid());
    put32(frame + HEAD + 4, count);
    if (send(conn, frame, sizeof frame, MSG_NOSIGNAL) != sizeof frame)
        end_listening();
}

static void hand_over(int shelf) {
    int to = accept4(shelf, NULL, NULL, SOCK_CLOEXEC);
    uint64_t wanted = 0;
    uid_t who = peer_of(to).uid;
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){1, 0}, sizeof(struct timeval));
    bool known = to >= 0 && who == state.uid && read(to, &wanted, sizeof wanted) == sizeof wanted && wanted;
    for (int i = 0; known && i < MAX_WAITING; i++) {
        if (waiting[i].id != wanted)
            continue;
        char space[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec one = {"+", 1};
        struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        *CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                              .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &waiting[i].fd, sizeof(int));
        sendmsg(to, &m, MSG_NOSIGNAL);
        close(waiting[i].fd);
        waiting[i].id = 0;
    }
    close(to);
}

static int next_expiry(void) {
    int64_t now = now_ms(CLOCK_MONOTONIC), next = -1;
    for (int i = 0; i < MAX_WAITING; i++) {
        if (waiting[i].id && waiting[i].until <= now) {
            close(waiting[i].fd);
            waiting[i].id = 0;
        }
        if (waiting[i].id && (next < 0 || waiting[i].until - now < next))
            next = waiting[i].until - now;
    }
    return next;
}

void stream_listen(int conn, struct pairs p) {
    const char *path = pairs_get(&p, "path", NULL), *port = pairs_get(&p, "port", NULL);
    struct out o;
    if ((!path && !port) || (port && pairs_number(&p, "port", 0, 65535) < 0) || !out_open(&o))
        reply_error(conn, "bad_request", "listen needs a port or a path");
    int shelf = open_shelf();
    if (!user_become(user_find(conn, p)))
        reply_errno(conn, "user");
    int listener = path ? listen_unix(path, &o) : listen_tcp(pairs_get(&p, "host", ""), port, &o);
    if (listener < 0 || shelf < 0)
        reply_errno(conn, "listen");
    reply_ok(conn, &o);
    for (;;) {
        struct pollfd fds[] = {{conn, POLLIN, 0}, {listener, POLLIN, 0}, {shelf, POLLIN, 0}};
        poll(fds, 3, next_expiry());
        if (fds[0].revents)
            end_listening(); /* the host never speaks here: it hung up, or is confused */
        if (fds[1].revents)
            shelve(conn, listener);
        if (fds[2].revents)
            hand_over(shelf);
    }
}

static int fetch(uint64_t id) {
    struct sockaddr_un at;
    socklen_t len = shelf_name(&at, id >> 32);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), got = -1;
    char byte, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec one = {&byte, 1};
    struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (connect(fd, (void *)&at, len) || peer_of(fd).uid != state.uid || peer_of(fd).pid != (pid_t)(id >> 32))
        return -1;
    if (write_whole(fd, &id, sizeof id) && recvmsg(fd, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
        memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof got);
    close(fd);
    return got;
}

void stream_accept(int conn, struct pairs p) {
    long id = pairs_number(&p, "id", -1, INT64_MAX - 9);
    int fd = id > 0 ? fetch(id) : -1;
    if (fd < 0)
        reply_error(conn, "refused", "no such connection waits");
    reply_ok(conn, NULL);
    pump(conn, fd);
}
