/* Who a stream runs as, and with what environment. */
#include "ussy.h"
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MAX_GROUPS = 256 };
#define PATH_OF_ALL "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The stream's `user`, else the VM's login user, else root; the last needs no passwd file. */
const struct passwd *user_find(int conn, struct pairs p) {
    static struct passwd root = {.pw_name = "root", .pw_dir = "/", .pw_shell = "/bin/sh"};
    const char *asked = pairs_get(&p, "user", NULL), *name = asked ? asked : state.login_user;
    struct passwd *user = getpwnam(name);
    if (!user && !asked)
        user = getpwnam(name = "root");
    if (!user && strcmp(name, "root"))
        reply_error(conn, "no_user", "no user %s", name);
    user = user ? user : &root;
    if (!*user->pw_shell)
        user->pw_shell = "/bin/sh";
    return user;
}

bool user_become(const struct passwd *user) {
    gid_t groups[MAX_GROUPS];
    int count = MAX_GROUPS;
    if (state.uid && user->pw_uid == state.uid)
        return true;
    if (getgrouplist(user->pw_name, user->pw_gid, groups, &count) < 0)
        count = MAX_GROUPS;
    return !setgroups(count, groups) && !setgid(user->pw_gid) && !setuid(user->pw_uid);
}

static void set_pair(const char *pair) {
    char name[256];
    size_t len = strcspn(pair, "=");
    if (len == 0 || len >= sizeof name || pair[len] != '=')
        return;
    memcpy(name, pair, len);
    name[len] = 0;
    setenv(name, pair + len + 1, 1);
}

/* What PAM gives a login on Debian: NAME=VALUE lines, values perhaps in quotes. */
static void read_environment(void) {
    char line[1024];
    FILE *f = fopen("/etc/environment", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '='), quote = value ? value[1] : 0;
        size_t end = strlen(line);
        if ((quote == '"' || quote == '\'') && end && line[end - 1] == quote && line + end - 1 > value + 1) {
            line[end - 1] = 0;
            memmove(value + 1, value + 2, strlen(value + 2) + 1);
        }
        if (*line != '#')
            set_pair(line);
    }
    if (f)
        fclose(f);
}

void user_environment(const struct passwd *user, struct pairs p) {
    char folder[64], bus[96];
    clearenv();
    setenv("PATH", PATH_OF_ALL, 1);
    setenv("LANG", "C.UTF-8", 1);
    read_environment();
    setenv("HOME", user->pw_dir, 1);
    setenv("USER", user->pw_name, 1);
    setenv("LOGNAME", user->pw_name, 1);
    setenv("SHELL", user->pw_shell, 1);
    snprintf(folder, sizeof folder, "/run/user/%u", user->pw_uid);
    snprintf(bus, sizeof bus, "unix:path=%s/bus", folder);
    if (!access(folder, F_OK)) {
        setenv("XDG_RUNTIME_DIR", folder, 1);
        setenv("DBUS_SESSION_BUS_ADDRESS", bus, 1);
    }
    for (size_t at = 0; at < state.env_len; at += strlen(state.env + at) + 1)
        set_pair(state.env + at);
    for (const char *k, *v; pairs_next(&p, &k, &v);)
        if (!strcmp(k, "env"))
            set_pair(v);
    const char *path = getenv("PATH");
    char with_kit[4096];
    if (!access(KIT, X_OK) && snprintf(with_kit, sizeof with_kit, "%s:" KIT, path ? path : "") < (int)sizeof with_kit)
        setenv("PATH", with_kit, 1);
}

/* Kill every descendant. The caller adopts orphans (subreaper), so killing children over and over reaches all. */
void user_end_tree(const char *cgroup) {
    char path[96], list[4096];
    snprintf(path, sizeof path, "%s/cgroup.kill", cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        write_whole(fd, "1", 1);
    close(fd);
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    for (int64_t deadline = now_ms(CLOCK_MONOTONIC) + 5000; now_ms(CLOCK_MONOTONIC) < deadline;) {
        FILE *f = fopen(path, "re");
        bool any = f && fgets(list, sizeof list, f);
        for (char *word, *rest = list; any && (word = strsep(&rest, " "));)
            if (*word)
                kill(atoi(word), SIGKILL);
        if (f)
            fclose(f);
        if (!any || waitpid(-1, NULL, 0) < 0)
            return;
    }
}
