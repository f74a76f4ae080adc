/* The agent's loop: the control port, the stream port, and the children that serve streams. */
#include "ussy.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

struct state state = {.root = "", .login_user = "root"};

/* Shared with the children: a child clears `stranger` once its client has shown the secret. */
struct slot { pid_t pid; atomic_bool stranger; };
static struct slot *slots;
static int mine, listener = -1, hosts = -1, spoken = -1;

static void wake(int sig) { (void)sig; }

static void reap(void) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        settle_reaped(pid, status);
        for (int i = 0; i < MAX_STREAMS; i++)
            if (slots[i].pid == pid)
                slots[i].pid = 0, slots[i].stranger = false;
    }
}

void agent_authenticated(void) { slots[mine].stranger = false; }

int agent_listen(const char *device, const char *address, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(address)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* bound to the device: what comes over lo, from the guest's own programs, is refused */
    bool bound = !device || !setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1);
    if (bound && !bind(fd, (void *)&at, sizeof at) && !listen(fd, 256))
        return listener = fd;
    kernel_log("ussy: no stream port: %s\n", strerror(errno));
    close(fd);
    return -1;
}

int agent_port(void) {
    struct sockaddr_in at;
    return listener < 0 || getsockname(listener, (void *)&at, &(socklen_t){sizeof at}) ? 0 : ntohs(at.sin_port);
}

/* A container has no serial port: its host connects to this socket, one connection after the other. */
void agent_hosts(int listening) { hosts = listening; }

/* The connection of the host that came last; the one before it is dead or wedged. */
static int welcome_host(int before) {
    int control = accept4(hosts, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (control < 0)
        return before;
    close(before);
    control_begin(control, -1);
    return control;
}

/* What a container's init and its service say; -1 for none. */
void agent_relays(int from) { spoken = from; }

/* Pass it on to the host's log: so much in a second, and what is beyond that is lost, since the log is the host's. */
static void relay(void) {
    enum { PER_SECOND = 16 << 10, AT_ONCE = 256 << 10 };
    static int64_t room = AT_ONCE, last;
    static char text[4096];
    ssize_t n = read(spoken, text, sizeof text);
    int64_t now = now_ms(CLOCK_MONOTONIC);
    room += (now - last) * PER_SECOND / 1000;
    room = room > AT_ONCE ? AT_ONCE : room;
    last = now;
    if (n > 0 && n <= room && write_whole(2, text, n))
        room -= n;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close(spoken), spoken = -1;
}

static int free_slot(void) {
    int slot = -1, strangers = 0;
    for (int i = MAX_STREAMS - 1; i >= 0; i--) {
        strangers += slots[i].pid && slots[i].stranger;
        slot = slots[i].pid ? slot : i;
    }
    return strangers < MAX_STRANGERS ? slot : -1;
}

static void keep_alive(int fd) {
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){60}, sizeof(int));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){20}, sizeof(int));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

/* The kernel takes a connection from the guest to its own address as one from the device: refuse it here. */
static bool from_inside(int conn) {
    struct sockaddr_in own, peer;
    if (state.on_host)
        return false;
    if (getsockname(conn, (void *)&own, &(socklen_t){sizeof own}) ||
        getpeername(conn, (void *)&peer, &(socklen_t){sizeof peer}))
        return true;
    return own.sin_addr.s_addr == peer.sin_addr.s_addr || ntohl(peer.sin_addr.s_addr) >> 24 == 127;
}

static void accept_one(int control, const sigset_t *unblocked) {
    int conn = accept4(listener, NULL, NULL, SOCK_CLOEXEC), slot = free_slot();
    if (conn < 0)
        return;
    pid_t pid = -1;
    if (slot >= 0 && !from_inside(conn)) {
        slots[slot].stranger = true;
        pid = fork(); /* the table is shared: only this side may write the pid */
    }
    if (pid == 0) {
        mine = slot;
        close(listener);
        close(control);
        close(hosts);
        close(spoken);
        signal(SIGCHLD, SIG_DFL);
        signal(SIGIO, SIG_DFL);
        sigprocmask(SIG_SETMASK, unblocked, NULL);
        keep_alive(conn);
        stream_serve(conn);
    }
    if (pid > 0)
        slots[slot].pid = pid;
    close(conn);
}

static void watch_signals(sigset_t *unblocked) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGIO);
    sigprocmask(SIG_BLOCK, &watched, unblocked);
    struct sigaction act = {.sa_handler = wake};
    sigaction(SIGCHLD, &act, NULL);
    sigaction(SIGIO, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

void agent_run(int control, int listening, int configured) {
    sigset_t unblocked;
    slots = mmap(NULL, MAX_STREAMS * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (slots == MAP_FAILED)
        return;
    listener = listening;
    state.uid = geteuid();
    watch_signals(&unblocked);
    control_begin(control, configured);
    for (bool host_there = control >= 0;;) {
        /* a port whose host went away is readable for ever: look again at its signal, or after a while */
        struct pollfd fds[] = {{host_there ? control : -1, POLLIN, 0}, {listener, POLLIN, 0}, {hosts, POLLIN, 0},
                               {spoken, POLLIN, 0}};
        struct timespec look = {0, 250 * 1000000};
        ppoll(fds, 4, host_there || control < 0 || hosts >= 0 ? NULL : &look, &unblocked);
        reap();
        if (fds[3].revents)
            relay();
        if (fds[2].revents)
            control = welcome_host(control), host_there = control >= 0;
        else if (control >= 0 && (hosts < 0 || host_there) && (!host_there || fds[0].revents))
            host_there = control_input();
        if (!host_there && state.on_host)
            return;
        if (fds[1].revents & POLLIN)
            accept_one(control, &unblocked);
    }
}
