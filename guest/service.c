/* What an image without an init of its own runs: started, restarted after a crash, its words kept in a log. */
#include "ussy.h"
#include <ctype.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define FILE_OF_SERVICE "/run/ussycode/service"
#define LOG "/var/log/ussycode-service.log"
enum {
    MOST = 512 << 10,        /* bytes of the file that says what to run */
    MAX_LOG = 4 << 20,       /* bytes of the log before it is put aside; one older log is kept */
    MAX_ARGS = 256,
    FIRST_WAIT_MS = 500, LAST_WAIT_MS = 30000,
    STEADY_MS = 10000,       /* a service that ran so long is restarted without much waiting */
};

static struct { char *user, *cwd, *args[MAX_ARGS + 1], **env; char data[MOST + 1]; } s;

/* The file holds words that end with NUL: user, folder, number of arguments, the arguments, then NAME=VALUE pairs. */
bool service_write(struct pairs p, const char *env, size_t env_len, struct out *o) {
    int count = 0;
    struct pairs again = p;
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        count += !strcmp(k, "arg");
    if (!count || !out_open(o))
        return false;
    fprintf(o->file, "%s%c%s%c%d%c", pairs_get(&again, "service_user", ""), 0, pairs_get(&again, "service_cwd", "/"), 0,
            count, 0);
    for (const char *k, *v; pairs_next(&again, &k, &v);)
        if (!strcmp(k, "arg"))
            fwrite(v, 1, strlen(v) + 1, o->file);
    fwrite(env, 1, env_len, o->file);
    return true;
}

static bool read_service(void) {
    int fd = open(FILE_OF_SERVICE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t len = 0, n;
    while (fd >= 0 && (n = read(fd, s.data + len, MOST - len)) > 0)
        len += n;
    close(fd);
    char *at = s.data, *end = s.data + len;
#define NEXT (at < end ? (at += strlen(at) + 1) : at)
    s.user = at, s.cwd = NEXT;
    int count = atoi(NEXT);
    NEXT;
    if (len == 0 || end[-1] || count < 1 || count > MAX_ARGS)
        return false;
    for (int i = 0; i < count && at < end; i++, NEXT)
        s.args[i] = at;
#undef NEXT
    size_t pairs = 0;
    for (char *c = at; c < end; c += strlen(c) + 1)
        pairs++;
    s.env = calloc(pairs + 1, sizeof *s.env);
    for (size_t i = 0; s.env && i < pairs; i++, at += strlen(at) + 1)
        s.env[i] = at;
    return s.args[0] && s.env;
}

static bool number(const char *text, long *to) {
    char *end;
    *to = strtol(text, &end, 10);
    return isdigit((unsigned char)*text) && !*end && *to <= 0x7fffffff;
}

/* NAME or UID, with :GROUP or :GID perhaps; root when it says nothing. */
static bool find_user(struct passwd *as, bool *named) {
    static char copy[256];
    snprintf(copy, sizeof copy, "%s", s.user);
    char *group = strchr(copy, ':');
    long id;
    if (group)
        *group++ = 0;
    bool is_number = number(copy, &id);
    struct passwd *found = !*copy ? getpwuid(0) : is_number ? getpwuid(id) : getpwnam(copy);
    *as = found ? *found : (struct passwd){.pw_name = copy, .pw_dir = "/", .pw_uid = is_number ? id : 0};
    *named = found;
    if (!found && *copy && !is_number)
        return false;
    if (group && *group) {
        struct group *entry = number(group, &id) ? NULL : getgrnam(group);
        if (!entry && !number(group, &id))
            return false;
        as->pw_gid = entry ? entry->gr_gid : id;
    }
    return true;
}

static void complain(const char *what, const char *about) {
    dprintf(2, "ussycode: %s %s: %s\n", what, about, strerror(errno));
    _exit(126);
}

static void __attribute__((noreturn)) run(void) {
    struct passwd as;
    bool named;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    umask(022);
    if (!find_user(&as, &named))
        complain("there is no user", s.user);
    if (fchown(1, as.pw_uid, as.pw_gid)) /* so that it may open /dev/stdout */
        kernel_log("ussy: cannot give a log to its service\n");
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", as.pw_dir, 1);
    for (char **pair = s.env; *pair; pair++)
        putenv(*pair);
    if (named ? initgroups(as.pw_name, as.pw_gid) : setgroups(0, NULL))
        complain("cannot become", s.user);
    if (setgid(as.pw_gid) || setuid(as.pw_uid))
        complain("cannot become", s.user);
    if (chdir(s.cwd))
        complain("cannot enter", s.cwd);
    execvp(s.args[0], s.args);
    complain("cannot run", s.args[0]);
    _exit(127);
}

static int open_log(void) {
    struct stat now;
    if (!lstat(LOG, &now) && now.st_size > MAX_LOG)
        rename(LOG, LOG ".1");
    return open(LOG, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
}

static void keep_words(int from) {
    static char words[64 << 10];
    ssize_t n;
    size_t written = 0;
    int log = open_log();
    while ((n = read(from, words, sizeof words)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0 && log >= 0)
            write_whole(log, words, n); /* a full disk loses words, and nothing else */
        if (n > 0 && (written += n) > MAX_LOG / 4) {
            close(log);
            log = open_log(), written = 0;
        }
    }
    close(log);
}

/* One life of the service; its exit status as a shell tells it. */
static int live(void) {
    int out[2], status = 0;
    if (pipe2(out, O_CLOEXEC))
        return 126;
    pid_t pid = fork();
    if (!pid) {
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0), dup2(out[1], 1), dup2(out[1], 2);
        run();
    }
    close(out[1]);
    keep_words(out[0]);
    close(out[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void note(int status, int wait_ms) {
    int log = open_log();
    if (status)
        dprintf(log, "ussycode: the service ended with %d; it is started again in %d ms\n", status, wait_ms);
    else
        dprintf(log, "ussycode: the service ended well\n");
    close(log);
}

/* A process beside PID 1: runs the service until it ends well. */
static void __attribute__((noreturn)) look_after(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_NAME, "ussy-service");
    for (int wait_ms = FIRST_WAIT_MS;; wait_ms = wait_ms * 2 > LAST_WAIT_MS ? LAST_WAIT_MS : wait_ms * 2) {
        int64_t began = now_ms(CLOCK_MONOTONIC);
        int status = live();
        if (now_ms(CLOCK_MONOTONIC) - began > STEADY_MS)
            wait_ms = FIRST_WAIT_MS;
        note(status, wait_ms);
        if (!status)
            _exit(0);
        nanosleep(&(struct timespec){wait_ms / 1000, wait_ms % 1000 * 1000000}, NULL);
    }
}

/* Start the service when there is one; the second call and later ones do nothing. */
void service_start(void) {
    static bool started;
    if (started || access(FILE_OF_SERVICE, F_OK))
        return;
    started = true;
    if (read_service() && !fork())
        look_after();
    unlink(FILE_OF_SERVICE);
}
