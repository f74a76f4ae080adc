/* A template: the image's init boots as nobody, until the image says that all is quiet; a copy becomes somebody. */
#include "ussy.h"
#include <sys/mount.h>
#include <sys/wait.h>

#define SETTLE "/usr/lib/ussycode/settle" /* of the image: ends once everything has started, with 0 when all is well */
#define BECOME "/usr/lib/ussycode/become" /* of the image: gives a copy's variables, its arguments, to what runs already */
#define JOURNALS "/var/log/journal/"
#define JOURNAL_DAEMON "/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define OWN_BOOT_ID "/run/ussycode/boot_id"
enum { BECOME_MS = 15000, LOOK_MS = 2, MAX_VARIABLES = 1024, JOURNAL_SECONDS = 5 };

static enum { NOT_ASKED, SETTLING, SETTLED, RESTLESS } now;
static pid_t settler;

static pid_t start(const char *program, char **argv) {
    pid_t pid = fork();
    if (pid)
        return pid;
    static const int usual[] = {SIGCHLD, SIGIO, SIGPIPE, SIGHUP};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        signal(usual[i], SIG_DFL);
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    execv(program, argv);
    _exit(127);
}

/* Let the image's init begin without an identity: once, before any `configure`, where the image is made for it. */
bool settle_begin(void) {
    char *argv[] = {SETTLE, NULL};
    if (now != NOT_ASKED || state.configured || state.container || state.on_host || access(SETTLE, X_OK))
        return false;
    identity_be_nobody();
    now = SETTLING;
    settler = start(SETTLE, argv);
    return settler > 0;
}

bool settle_began(void) { return now != NOT_ASKED; }

void settle_reaped(pid_t pid, int status) {
    if (now == SETTLING && pid == settler)
        now = WIFEXITED(status) && !WEXITSTATUS(status) ? SETTLED : RESTLESS;
}

const char *settle_word(void) {
    return now == SETTLED ? "settled" : now == RESTLESS ? "failed" : now == SETTLING ? "settling" : "not asked";
}

/* The id of this boot was drawn in the template, and can only be hidden. */
static bool change_boot_id(void) {
    char id[37];
    int fd = open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC);
    bool good = read_whole(fd, id, sizeof id);
    close(fd);
    return good && replace_file(OWN_BOOT_ID, 0444, id, sizeof id) && !mount(OWN_BOOT_ID, BOOT_ID, NULL, MS_BIND, NULL) &&
           !mount(NULL, BOOT_ID, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static bool ended_well(pid_t pid) {
    int status = 1;
    for (int64_t until = now_ms(CLOCK_MONOTONIC) + BECOME_MS; now_ms(CLOCK_MONOTONIC) < until;) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) && !WEXITSTATUS(status);
        nanosleep(&(struct timespec){0, LOOK_MS * 1000000}, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    errno = ETIMEDOUT;
    return false;
}

/* systemd's journal was begun as nobody's, in another boot. What is in it stays; in a while, when nobody waits for this
   machine any more, its daemon is ended and started by systemd again, as this machine's. */
static void take_over_journal(void) {
    char id[33] = "", path[64], line[16] = "";
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    bool known = read_whole(fd, id, 32);
    close(fd);
    snprintf(path, sizeof path, JOURNALS "%s", id);
    if (!known || rename(JOURNALS NOBODY, path) || fork())
        return;
    sleep(JOURNAL_SECONDS);
    fd = open(JOURNAL_DAEMON, O_RDONLY | O_CLOEXEC);
    pid_t pid = read(fd, line, sizeof line - 1) > 0 ? atoi(line) : 0;
    if (pid > 1)
        kill(pid, SIGTERM);
    _exit(0);
}

/* What a copy of a settled machine needs once it has its identity; nothing for any other. */
bool settle_become(void) {
    static char *argv[MAX_VARIABLES + 2] = {BECOME};
    if (now != SETTLED)
        return now == NOT_ASKED;
    int count = 1;
    for (size_t at = 0; at < state.env_len && count <= MAX_VARIABLES; at += strlen(state.env + at) + 1)
        argv[count++] = state.env + at;
    if (!change_boot_id() || (count > 1 && !ended_well(start(BECOME, argv))))
        return false; /* the host asks again, or does without this copy */
    take_over_journal();
    now = NOT_ASKED;
    return true;
}
