// pty_copy [--into FILTER FILE] PROGRAM ARGUMENT...: runs PROGRAM on a bare pair of terminals that add nothing, and copies what it writes to
// stdout: the least that anything which gives a program a terminal has to do. With --into, FILTER FILE does the copying.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int count, char **words) {
    char *filter[] = {NULL, NULL, NULL};
    if (count > 4 && strcmp(words[1], "--into") == 0) {
        filter[0] = words[2], filter[1] = words[3];
        words += 3, count -= 3;
    }
    if (count < 2) {
        fputs("usage: pty_copy PROGRAM ARGUMENT...\n", stderr);
        return 64;
    }
    int ours, theirs;
    struct termios raw;
    if (openpty(&ours, &theirs, NULL, NULL, NULL) != 0)
        fail("pty_copy: openpty");
    tcgetattr(theirs, &raw);
    cfmakeraw(&raw);
    tcsetattr(theirs, TCSANOW, &raw);
    pid_t child = fork();
    if (child < 0)
        fail("pty_copy: fork");
    if (child == 0) {
        close(ours);
        dup2(theirs, STDOUT_FILENO);
        execv(words[1], words + 1);
        fail("pty_copy: exec");
    }
    close(theirs);
    if (filter[0]) {
        dup2(ours, STDIN_FILENO);
        execv(filter[0], filter);
        fail("pty_copy: exec");
    }
    static char buffer[65536];
    for (;;) {
        ssize_t length = read(ours, buffer, sizeof buffer);
        if (length < 0 && errno == EINTR)
            continue;
        // EIO: the last one who had the other end open is gone.
        if (length <= 0)
            break;
        for (ssize_t done = 0; done < length;) {
            ssize_t written = write(STDOUT_FILENO, buffer + done, (size_t)(length - done));
            if (written < 0)
                fail("pty_copy: write");
            done += written;
        }
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
