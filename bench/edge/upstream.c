/* The app behind every proxy of the bench: answers any request head with 200 and a short body, keep-alive.
 * A connection that begins with the guest agent's hello is first told OK, as a dial through the agent is.
 * argv: addresses "HOST:PORT" to listen on. One thread, epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, BUFFER = 65536 };
struct peer { int listening, greeted; size_t used; char data[BUFFER]; };
static struct peer *peers[MOST];
static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";

static void watch(int poll, int fd, int listening) {
    if (fd >= MOST) { close(fd); return; }
    struct peer *p = peers[fd];
    if (!p && !(p = peers[fd] = malloc(sizeof *p))) exit(1);
    p->listening = listening; p->greeted = 0; p->used = 0;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
}

static void listen_on(int poll, char *where) {
    char *colon = strrchr(where, ':');
    if (!colon) exit(2);
    *colon = 0;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(colon + 1))};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, where, &a.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1024)) { perror("listen"); exit(1); }
    watch(poll, fd, 1);
}

/* Consumes the hello; 0 while it is incomplete. */
static int greet(int fd, struct peer *p) {
    if (p->used < 6) return 0;
    p->greeted = 1;
    if (memcmp(p->data, "USSY1 ", 6)) return 1;
    if (p->used < 74) { p->greeted = 0; return 0; }
    unsigned n;
    memcpy(&n, p->data + 70, 4);
    size_t whole = 74 + ntohl(n);
    if (whole > BUFFER || p->used < whole) { p->greeted = 0; return 0; }
    memmove(p->data, p->data + whole, p->used -= whole);
    return write(fd, "OK\0\0\0\0", 6) == 6;
}

static int serve(int fd, struct peer *p) {
    ssize_t n = read(fd, p->data + p->used, BUFFER - p->used);
    if (n <= 0) return 0;
    p->used += (size_t)n;
    if (!p->greeted && !greet(fd, p)) return 1;
    char *end;
    while ((end = memmem(p->data, p->used, "\r\n\r\n", 4))) {
        size_t head = (size_t)(end - p->data) + 4;
        if (write(fd, ANSWER, sizeof ANSWER - 1) != sizeof ANSWER - 1) return 0;
        memmove(p->data, p->data + head, p->used -= head);
    }
    return 1;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* a proxy that cuts a connection must not end the app of all others */
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 1; i < argc; i++) listen_on(poll, argv[i]);
    struct epoll_event events[64];
    for (;;) {
        int n = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, on = 1;
            if (peers[fd]->listening) {
                int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                if (got < 0) continue;
                setsockopt(got, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(poll, got, 0);
            } else if (!serve(fd, peers[fd])) {
                close(fd);
            }
        }
    }
}
