/* exec: a program as a user, on a terminal or with three pipes, framed over one connection. */
#include "ussy.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <utmp.h>

enum op { STDIN, STDOUT, STDERR, EXIT, EXIT_SIGNAL, CREDIT = 6, WINDOW = 8, SIGNAL };
enum {
    HEAD = 5,
    GRACE_MS = 300,           /* how long a background child may go on holding the output of a finished program */
    CREDIT_STEP = 32 << 10,
    CONTROL_ROOM = 64,        /* of the output buffer, kept for credit and exit frames */
    MAX_WORDS = 256,
    MAX_MOTD = 16 << 10,
};
#define INTO_CGROUP 0x200000000ULL /* CLONE_INTO_CGROUP of clone3(2) */
#define SESSIONS "/sys/fs/cgroup/ussycode"

static struct {
    int conn, in, out[2];
    pid_t pid;
    bool pty, tree, eof, exited;
    int status;
    int owed[2];              /* bytes that were in the pipes when the program ended */
    int64_t deadline;
    uint32_t credit;
    size_t got, kept, at, pending, sent;
    char cgroup[64];
    char inbound[HEAD + MAX_DATA], input[STDIN_WINDOW], outbound[128 << 10];
} x;

static const struct { const char *name; int number; } signals[] = {
    {"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"KILL", SIGKILL}, {"TERM", SIGTERM}, {"USR1", SIGUSR1},
    {"USR2", SIGUSR2}, {"ALRM", SIGALRM}, {"PIPE", SIGPIPE}, {"ABRT", SIGABRT}, {"CONT", SIGCONT}, {"STOP", SIGSTOP},
    {"TSTP", SIGTSTP}, {"WINCH", SIGWINCH}, {"SEGV", SIGSEGV}, {"BUS", SIGBUS}, {"FPE", SIGFPE}, {"ILL", SIGILL},
    {"TRAP", SIGTRAP}, {"SYS", SIGSYS}, {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
};
enum { SIGNALS = sizeof signals / sizeof *signals };

static void leave(void) {
    rmdir(x.cgroup);
    _exit(0);
}

static void client_vanished(void) {
    if (x.pty)
        ioctl(x.in, TIOCSIG, SIGHUP); /* the foreground job; closing the terminal hangs up its session */
    else if (!x.exited)
        kill(-x.pid, SIGHUP);
    close(x.in), close(x.out[0]), close(x.out[1]);
    if (x.tree)
        user_end_tree(x.cgroup);
    leave();
}

static size_t room(void) { return sizeof x.outbound - x.pending; }

static void send_frame(enum op op, const void *payload, size_t len) {
    char *to = x.outbound + x.pending;
    to[0] = op;
    put32(to + 1, len);
    memmove(to + HEAD, payload, len);
    x.pending += HEAD + len;
}

static void flush(void) {
    ssize_t n = send(x.conn, x.outbound + x.sent, x.pending - x.sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        client_vanished();
    x.sent += n > 0 ? n : 0;
    if (x.sent == x.pending)
        x.sent = x.pending = 0;
}

static void end_input(void) {
    char key = 4;
    struct termios t;
    if (x.pty && !tcgetattr(x.in, &t))
        key = t.c_cc[VEOF];
    if (x.pty)
        write_whole(x.in, &key, 1);
    else
        close(x.in), x.in = -1;
    x.eof = false;
}

static void feed(void) {
    ssize_t n = x.in < 0 ? (ssize_t)x.kept : write(x.in, x.input + x.at, x.kept);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) { /* the program no longer reads: what it is sent is thrown away */
        if (!x.pty)
            close(x.in), x.in = -1;
        n = x.kept;
    }
    x.at += n, x.kept -= n, x.credit += n;
    if (!x.kept)
        x.at = 0;
}

static void take_input(const char *data, size_t len) {
    if (len > sizeof x.input - x.kept)
        client_vanished(); /* it sent more than its credit */
    if (x.at + x.kept + len > sizeof x.input)
        memmove(x.input, x.input + x.at, x.kept), x.at = 0;
    memcpy(x.input + x.at + x.kept, data, len);
    x.kept += len;
    x.eof |= len == 0;
}

static void resize(const unsigned char *d) {
    struct winsize size = {d[0] << 8 | d[1], d[2] << 8 | d[3], d[4] << 8 | d[5], d[6] << 8 | d[7]};
    if (x.pty)
        ioctl(x.in, TIOCSWINSZ, &size);
}

static void forward_signal(const char *name, size_t len) {
    pid_t group = x.pty ? tcgetpgrp(x.in) : x.pid;
    for (int i = 0; i < SIGNALS; i++)
        if (strlen(signals[i].name) == len && !memcmp(signals[i].name, name, len) && group > 1 && !x.exited)
            kill(-group, signals[i].number);
}

static void take_frames(void) {
    size_t at = 0, len;
    for (; x.got - at >= HEAD; at += HEAD + len) {
        char *frame = x.inbound + at;
        if ((len = get32(frame + 1)) > MAX_DATA)
            client_vanished();
        if (x.got - at < HEAD + len)
            break;
        if (frame[0] == STDIN)
            take_input(frame + HEAD, len);
        else if (frame[0] == WINDOW && len == 8)
            resize((unsigned char *)frame + HEAD);
        else if (frame[0] == SIGNAL)
            forward_signal(frame + HEAD, len);
    }
    memmove(x.inbound, x.inbound + at, x.got -= at);
}

static void read_client(void) {
    ssize_t n = read(x.conn, x.inbound + x.got, sizeof x.inbound - x.got);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        client_vanished();
    x.got += n > 0 ? n : 0;
    take_frames();
    if (x.kept)
        feed();
}

static void read_program(int i) {
    size_t most = room() - HEAD - CONTROL_ROOM;
    char *to = x.outbound + x.pending + HEAD;
    ssize_t n = read(x.out[i], to, most < MAX_DATA ? most : MAX_DATA);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* a terminal says EIO once nobody has it open */
        close(x.out[i]), x.out[i] = -1;
        return;
    }
    x.owed[i] -= n;
    send_frame(i ? STDERR : STDOUT, to, n);
}

static void reap(void) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid != x.pid)
            continue;
        x.exited = true, x.status = status;
        x.deadline = now_ms(CLOCK_MONOTONIC) + GRACE_MS;
        for (int i = 0; i < 2; i++)
            if (x.out[i] < 0 || ioctl(x.out[i], FIONREAD, &x.owed[i]))
                x.owed[i] = 0;
    }
}

static bool still_owed(int i, int64_t now) {
    return x.out[i] >= 0 && (!x.exited || now < x.deadline || x.owed[i] > 0);
}

static void send_exit(void) {
    char status[4];
    const char *name = NULL;
    for (int i = 0; i < SIGNALS; i++)
        if (WIFSIGNALED(x.status) && signals[i].number == WTERMSIG(x.status))
            name = signals[i].name;
    put32(status, WIFEXITED(x.status) ? WEXITSTATUS(x.status) : 255);
    if (WIFSIGNALED(x.status))
        send_frame(EXIT_SIGNAL, name ? name : "KILL", strlen(name ? name : "KILL"));
    else
        send_frame(EXIT, status, sizeof status);
    fcntl(x.conn, F_SETFL, 0);
    while (x.pending)
        flush();
    finish_reading(x.conn);
    leave();
}

static void turn(const sigset_t *unblocked) {
    int64_t now = now_ms(CLOCK_MONOTONIC);
    char number[4];
    reap();
    if (x.credit && room() >= CONTROL_ROOM && (x.credit >= CREDIT_STEP || !x.kept)) {
        put32(number, x.credit);
        send_frame(CREDIT, number, sizeof number);
        x.credit = 0;
    }
    if (x.pending)
        flush();
    if (x.eof && !x.kept && x.in >= 0)
        end_input();
    if (x.exited && !still_owed(0, now) && !still_owed(1, now) && room() >= CONTROL_ROOM)
        send_exit();
    bool space = room() > HEAD + 2 * CONTROL_ROOM;
    struct pollfd fds[4] = {{x.conn, POLLIN | (x.pending ? POLLOUT : 0), 0},
                            {x.kept && x.in >= 0 ? x.in : -1, POLLOUT, 0},
                            {space && still_owed(0, now) ? x.out[0] : -1, POLLIN, 0},
                            {space && still_owed(1, now) ? x.out[1] : -1, POLLIN, 0}};
    int64_t left = x.deadline > now ? x.deadline - now : 0;
    struct timespec grace = {left / 1000, left % 1000 * 1000000};
    if (ppoll(fds, 4, left ? &grace : NULL, unblocked) < 0)
        return;
    if (fds[0].revents)
        read_client();
    if (fds[1].revents)
        feed();
    for (int i = 0; i < 2; i++)
        /* The first of the two may have filled the buffer. */
        if (fds[2 + i].revents && room() > HEAD + 2 * CONTROL_ROOM)
            read_program(i);
}

/* Words of a command for an image without a shell: quotes and backslashes, nothing else. */
static void split(char *c, char **words) {
    int n = 0;
    char *to = c, quote = 0;
    for (bool inside = false;; c++) {
        char this = *c;
        if (!this || (!quote && strchr(" \t\n", this))) {
            *to++ = 0;
            inside = false;
        } else {
            if (!inside && n < MAX_WORDS)
                words[n++] = to;
            inside = true;
            if (this == quote)
                quote = 0;
            else if (!quote && (this == '\'' || this == '"'))
                quote = this;
            else
                *to++ = this == '\\' && quote != '\'' && c[1] ? *++c : this;
        }
        if (!this)
            break;
    }
    words[n] = NULL;
}

static void say(const char *what, const char *name) {
    dprintf(2, "ussycode: %s %s: %s\n", what, name, strerror(errno));
}

static void join_cgroup(void) {
    char path[96];
    snprintf(path, sizeof path, "%s/cgroup.procs", x.cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        write_whole(fd, "0", 1);
    close(fd);
}

/* A child that is born in the session's group. To move it there afterwards makes the kernel wait for every task of the
   machine: some 25 ms under emulation, a third of a command's time. Before Linux 5.7 it has to be. */
static pid_t fork_in_cgroup(void) {
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
    } how = {.flags = INTO_CGROUP, .exit_signal = SIGCHLD};
    if (state.on_host)
        return fork();
    mkdir(SESSIONS, 0755);
    mkdir(x.cgroup, 0755);
    int group = open(x.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    how.cgroup = group;
    pid_t pid = group < 0 ? -1 : syscall(SYS_clone3, &how, sizeof how);
    if (pid < 0 && !(pid = fork()))
        join_cgroup();
    close(group);
    return pid;
}

static void write_score(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    write_whole(fd, "0", 1);
    close(fd);
}

/* What login says before a shell on a terminal; nothing to who does not want it, nor to a program. */
static void greet(const struct passwd *user) {
    static char text[MAX_MOTD];
    char path[512];
    snprintf(path, sizeof path, "%s%s/.hushlogin", state.root, user->pw_dir);
    if (!access(path, F_OK))
        return;
    snprintf(path, sizeof path, "%s/etc/motd", state.root);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    if (n > 0)
        write_whole(1, text, n);
}

/* In the child: become the user and the program. */
static void run(const struct passwd *user, const char *shell, struct pairs p) {
    static char *words[MAX_WORDS + 1];
    const char *cmd = pairs_get(&p, "cmd", NULL), *cwd = pairs_get(&p, "cwd", user->pw_dir);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    write_score();
    umask(022);
    if (!user_become(user)) {
        say("cannot become", user->pw_name);
        _exit(126);
    }
    user_environment(user, p);
    setenv("SHELL", shell ? shell : "", 1);
    if (x.pty)
        setenv("TERM", pairs_get(&p, "term", "xterm"), 1);
    if (chdir(cwd) && (pairs_get(&p, "cwd", NULL) || chdir("/")))
        say("cannot enter", cwd), _exit(126);
    if (x.pty && !cmd)
        greet(user);
    if (!shell) {
        split(strdup(cmd), words);
        execvp(words[0] ? words[0] : "", words);
        say("cannot run", cmd);
        _exit(127);
    }
    const char *slash = strrchr(shell, '/'), *base = slash ? slash + 1 : shell;
    bool login = !cmd || pairs_number(&p, "login", 0, 1) == 1;
    char name[256];
    snprintf(name, sizeof name, "%s%s", login ? "-" : "", base);
    execl(shell, name, cmd ? "-c" : NULL, cmd, NULL);
    say("cannot run", shell);
    _exit(127);
}

static bool start_on_pty(const struct passwd *user, const char *shell, struct pairs p) {
    long rows = pairs_number(&p, "rows", 24, 0xffff), cols = pairs_number(&p, "cols", 80, 0xffff);
    struct winsize size = {rows > 0 ? rows : 24, cols > 0 ? cols : 80, 0, 0};
    int master, slave;
    if (openpty(&master, &slave, NULL, NULL, &size))
        return false;
    if (fchown(slave, user->pw_uid, -1) || fchmod(slave, 0620))
        kernel_log("ussy: cannot give a terminal to its user\n");
    if (!(x.pid = fork_in_cgroup())) {
        close(master);
        login_tty(slave);
        run(user, shell, p);
    }
    close(slave);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    x.in = master, x.out[0] = fcntl(master, F_DUPFD_CLOEXEC, 0), x.out[1] = -1;
    return x.pid > 0;
}

static bool start_on_pipes(const struct passwd *user, const char *shell, struct pairs p) {
    int in[2], out[2], err[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        return false;
    if (!(x.pid = fork_in_cgroup())) {
        setsid();
        dup2(in[0], 0), dup2(out[1], 1), dup2(err[1], 2);
        run(user, shell, p);
    }
    close(in[0]), close(out[1]), close(err[1]);
    x.in = in[1], x.out[0] = out[0], x.out[1] = err[0];
    return x.pid > 0;
}

static void wake(int sig) { (void)sig; }

static void name_cgroup(void) {
    snprintf(x.cgroup, sizeof x.cgroup, SESSIONS "/%d-%llx", getpid(),
             (unsigned long long)now_ms(CLOCK_BOOTTIME));
}

static const char *shell_of(const struct passwd *user) {
    return !access(user->pw_shell, X_OK) ? user->pw_shell : !access("/bin/sh", X_OK) ? "/bin/sh" :
           !access(KIT "/sh", X_OK) ? KIT "/sh" : NULL;
}

void stream_exec(int conn, struct pairs p) {
    const struct passwd *user = user_find(conn, p);
    const char *shell = shell_of(user);
    if (!shell && !pairs_get(&p, "cmd", NULL))
        reply_error(conn, "no_shell", "this image has no shell");
    sigset_t child, unblocked;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &unblocked);
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = wake}, NULL);
    x.conn = conn;
    x.pty = pairs_number(&p, "pty", 0, 1) == 1, x.tree = pairs_number(&p, "tree", 0, 1) == 1;
    name_cgroup();
    if (x.tree)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    int begun[2];
    char none;
    if (pipe2(begun, O_CLOEXEC) || !(x.pty ? start_on_pty : start_on_pipes)(user, shell, p))
        reply_errno(conn, "exec");
    close(begun[1]);
    /* the program's copy closes as it begins: an interrupt sent right after OK finds it on its terminal */
    while (read(begun[0], &none, 1) < 0 && errno == EINTR)
        ;
    close(begun[0]);
    reply_ok(conn, NULL);
    int fds[] = {conn, x.in, x.out[0], x.out[1]};
    for (int i = 0; i < 4; i++)
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    for (;;)
        turn(&unblocked);
}
