/* The control port: find the host's sync, take frames, answer requests. */
#include "ussy.h"
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>

static const char SYNC[] = "\xffussycode-sync-1";
enum { SYNC_LEN = 16, NONCE_LEN = 16, HEAD = 5, SEND_MS = 2000, SYSTEMD_POWEROFF = 34 + 4,
       GRACE_SECONDS = 8, MAX_GRACE_SECONDS = 120, THAW_SECONDS = 5 };
enum kind { REQUEST = 1, OK, ERR, HELLO };

static int port = -1, tell_configured = -1;
static bool synced;
static size_t filled;
static char buffer[HEAD + MAX_FRAME + 4096];

void control_begin(int fd, int configured) {
    port = fd, synced = false, filled = 0;
    tell_configured = configured >= 0 ? configured : tell_configured;
}

/* A port without a host is ready at once, and takes nothing. A host that has just come is noticed after its first words,
   so its absence is believed only after a while. */
static bool takes_more(void) {
    for (int64_t until = now_ms(CLOCK_MONOTONIC) + SEND_MS; now_ms(CLOCK_MONOTONIC) < until;) {
        struct pollfd fd = {port, POLLOUT, 0};
        if (poll(&fd, 1, SEND_MS) == 1 && fd.revents & POLLOUT)
            return true;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return false;
}

/* A host that takes nothing for two seconds loses the frame, and is out of step until its next sync. */
static void send_bytes(const char *data, size_t len) {
    while (len && synced) {
        ssize_t n = write(port, data, len);
        if (n > 0)
            data += n, len -= n;
        else if (n < 0 && errno == EAGAIN && takes_more())
            continue;
        else if (n == 0 || errno != EINTR)
            synced = false;
    }
}

static void send_frame(enum kind kind, struct out *fields) {
    char head[HEAD];
    if (!out_close(fields) || fields->len > MAX_FRAME)
        return;
    put32(head, fields->len);
    head[4] = kind;
    send_bytes(head, HEAD);
    send_bytes(fields->data, fields->len);
    free(fields->data);
}

static void hello(const char *nonce) {
    struct out o;
    send_bytes(SYNC, SYNC_LEN);
    send_bytes(nonce, NONCE_LEN);
    if (!out_open(&o))
        return;
    out_add(&o, "version", "%d", VERSION);
    out_add(&o, "build", "%s", BUILD_ID);
    out_add(&o, "uptime_ms", "%lld", (long long)now_ms(CLOCK_BOOTTIME));
    out_add(&o, "configured", "%d", state.configured);
    send_frame(HELLO, &o);
}

static void refuse(const char *id, const char *code, const char *why) {
    struct out o;
    if (!out_open(&o))
        return;
    out_add(&o, "id", "%s", id);
    out_add(&o, "code", "%s", code);
    out_add(&o, "message", "%s", why);
    send_frame(ERR, &o);
}

static void pull_the_plug_later(unsigned seconds) {
    if (fork())
        return;
    sleep(seconds);
    sync_disks();
    reboot(RB_POWER_OFF);
    _exit(1);
}

static bool thaw(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool thawed = root >= 0 && (!ioctl(root, FITHAW, 0) || errno == EINVAL);
    close(root);
    return thawed;
}

/* Hold the root file system still, with nothing left to write. Whatever the host does, it goes on after a while. */
static bool freeze(void) {
    int root = state.container || state.on_host ? -1 : open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return false;
    sync_disks();
    pid_t waker = fork();
    if (!waker) {
        sleep(THAW_SECONDS);
        thaw();
        _exit(0);
    }
    bool frozen = waker > 0 && !ioctl(root, FIFREEZE, 0);
    close(root);
    return frozen;
}

static void shut_down(unsigned grace) {
    pull_the_plug_later(grace);
    if (is_tiny_init())
        kill(1, SIGTERM);
    else if (!access("/run/systemd/system", F_OK))
        kill(1, SYSTEMD_POWEROFF);
    else
        kill(1, SIGUSR2); /* "power off" to busybox' and sysvinit's relatives */
}

static const char *perform(const char *verb, struct pairs p, struct out *o, char *why, size_t room) {
    long grace = pairs_number(&p, "grace", GRACE_SECONDS, MAX_GRACE_SECONDS);
    if (!strcmp(verb, "configure"))
        return identity_configure(p, why, room);
    if (!strcmp(verb, "authorized_keys"))
        return identity_keys(p) ? NULL : "failed";
    if (!strcmp(verb, "stats"))
        report_stats(o);
    else if (!strcmp(verb, "ports"))
        report_ports(o);
    else if (!strcmp(verb, "sync"))
        sync_disks();
    else if (!strcmp(verb, "freeze"))
        return freeze() ? NULL : "failed";
    else if (!strcmp(verb, "thaw"))
        return thaw() ? NULL : "failed";
    else if (!strcmp(verb, "settle"))
        return settle_begin() ? NULL : "failed";
    else if (!strcmp(verb, "settled"))
        out_add(o, "state", "%s", settle_word());
    else if (strcmp(verb, "ping") && (strcmp(verb, "shutdown") || grace < 1))
        return "bad_request";
    return NULL;
}

/* A new time, name and boot wake half of the system: that may come after the answer, for which somebody waits. */
static void hurry(bool now) {
    struct sched_param how = {.sched_priority = now};
    if (!state.on_host && !state.container)
        syscall(SYS_sched_setscheduler, 0, (now ? SCHED_FIFO : SCHED_OTHER) | SCHED_RESET_ON_FORK, &how);
}

static void answer(const char *data, size_t len) {
    struct pairs p;
    struct out o;
    char why[200] = "";
    if (!pairs_check(&p, data, len) || !out_open(&o)) {
        refuse("", "bad_request", "not a sequence of pairs");
        return;
    }
    const char *id = pairs_get(&p, "id", ""), *verb = pairs_get(&p, "verb", "");
    out_add(&o, "id", "%.32s", id);
    hurry(!strcmp(verb, "configure"));
    const char *code = perform(verb, p, &o, why, sizeof why);
    if (code) {
        out_close(&o);
        free(o.data);
        refuse(id, code, *why ? why : verb);
    } else {
        send_frame(OK, &o);
    }
    hurry(false);
    if (code)
        return;
    if (!strcmp(verb, "shutdown") && !state.on_host) /* after the answer: the agent may not outlive the request */
        shut_down(pairs_number(&p, "grace", GRACE_SECONDS, MAX_GRACE_SECONDS));
    if ((state.configured || settle_began()) && tell_configured >= 0) {
        write_whole(tell_configured, "c", 1);
        close(tell_configured);
        tell_configured = -1;
    }
}

static void consume(size_t n) {
    memmove(buffer, buffer + n, filled -= n);
}

/* One step over the buffer; false when more bytes are needed. 0xFF only ever begins a sync: UTF-8 has none. */
static bool step(void) {
    char *mark = memchr(buffer, 0xff, filled);
    size_t clean = mark ? (size_t)(mark - buffer) : filled;
    size_t length = clean >= HEAD ? get32(buffer) : 0;
    if (synced && clean >= HEAD && length <= MAX_FRAME && clean >= HEAD + length) {
        if (buffer[4] == REQUEST)
            answer(buffer + HEAD, length);
        consume(HEAD + length);
        return true;
    }
    if (!mark && synced && length <= MAX_FRAME)
        return false;
    synced = false;
    consume(clean);
    if (!filled)
        return false;
    if (memcmp(buffer, SYNC, filled < SYNC_LEN ? filled : SYNC_LEN)) {
        consume(1);
        return true;
    }
    if (filled < SYNC_LEN + NONCE_LEN)
        return false;
    synced = true;
    hello(buffer + SYNC_LEN);
    consume(SYNC_LEN + NONCE_LEN);
    return true;
}

/* Take what there is; false when no host is connected. */
bool control_input(void) {
    ssize_t n = read(port, buffer + filled, sizeof buffer - filled);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        synced = false;
        filled = 0;
        return false;
    }
    filled += n;
    while (filled && step())
        ;
    return true;
}
