/* Where the program begins: as PID 1 of an initrd or of a container, or as an agent on the host, for tests only. */
#include "ussy.h"

/* ussy-init --serve ROOT CONTROL_FD: an agent on 127.0.0.1 that writes only below ROOT and spares the kernel. */
static int serve(const char *root, int control) {
    state.on_host = true, state.root = root;
    signal(SIGIO, SIG_IGN);
    int listener = agent_listen(NULL, "127.0.0.1", 0);
    fcntl(control, F_SETFL, O_NONBLOCK);
    fcntl(control, F_SETFD, FD_CLOEXEC);
    printf("%d\n", agent_port());
    fflush(stdout);
    agent_run(control, listener, -1);
    return 0;
}

int main(int argc, char **argv) {
    if (getpid() == 1 && argc == 3 && !strcmp(argv[1], "--container"))
        container_main(argv);
    if (getpid() == 1)
        init_main(argv);
    if (argc == 4 && !strcmp(argv[1], "--serve"))
        return serve(argv[2], atoi(argv[3]));
    fprintf(stderr, "ussy-init is PID 1 of a VM; build %s\n", BUILD_ID);
    return 2;
}
