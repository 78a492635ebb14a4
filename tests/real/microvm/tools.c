/* What runs in the two machines of tests/real/krun, one static program with several names:
 *   app                the app in the microVM: HTTP on port 80, one answer per connection
 *   get SOCKET PATH    a client of its: prints the answer's body; exit code 0 only for status 200
 *   verdict CODE       ends the outer machine: QEMU exits with 33 for 0, else with 35
 *   trace PROCESS      holds another process as a debugger does: exit code 0 if it may
 *   init.krun          the first process of a guest, which says that its app runs and, told to stop, goes without a word:
 *                      by a power-off, a reboot, or by ending, as which its kernel panics; its app's variable DEED says how
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <linux/vm_sockets.h>
#include <sys/un.h>
#include <unistd.h>

static void stopped(int signal) {
  (void)signal;
  if (write(1, "stopping\n", 9)) {}
  _exit(7);
}

static size_t slurp(const char *path, char *to, size_t most) {
  int fd = open(path, O_RDONLY);
  ssize_t got = fd < 0 ? -1 : read(fd, to, most);
  if (fd >= 0) close(fd);
  return got < 0 ? (size_t)sprintf(to, "errno %d", errno) : (size_t)got;
}

static size_t tried(int result, char *to) { return (size_t)sprintf(to, "%s %d", result < 0 ? "refused" : "done", result < 0 ? errno : 0); }

static int reach(int family, const void *address, socklen_t length) {
  int fd = socket(family, SOCK_STREAM, 0);
  struct timeval limit = {3, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  int result = connect(fd, address, length);
  int error = errno;
  close(fd);
  errno = error;
  return result;
}

static size_t answer(const char *path, char *to, size_t most) {
  struct sockaddr_in host = {AF_INET, htons(9999), {htonl(INADDR_LOOPBACK)}, {0}};
  if (!strcmp(path, "/")) return (size_t)sprintf(to, "hello from uid %d", getuid());
  if (!strcmp(path, "/env")) return (size_t)snprintf(to, most, "%s", getenv("HOSTILE") ? getenv("HOSTILE") : "unset");
  if (!strcmp(path, "/cmdline")) return slurp("/proc/cmdline", to, most);
  if (!strcmp(path, "/hosts")) return slurp("/etc/hosts", to, most);
  if (!strcmp(path, "/config")) return slurp("/config", to, most);
  if (!strcmp(path, "/release")) return tried(open("/app/new", O_CREAT | O_WRONLY, 0644), to);
  if (!strcmp(path, "/root")) return tried(open("/new-file", O_CREAT | O_WRONLY, 0644), to);
  if (!strcmp(path, "/data")) return tried(open("/db/kept", O_CREAT | O_WRONLY, 0644), to);
  if (!strcmp(path, "/node")) return tried(mknod("/db/disk", S_IFBLK | 0666, makedev(1, 0)), to);
  struct sockaddr_vm beyond = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 9999};
  if (!strcmp(path, "/vsock")) return tried(reach(AF_VSOCK, &beyond, sizeof beyond), to);
  if (!strcmp(path, "/loopback")) return tried(reach(AF_INET, &host, sizeof host), to);
  if (!strcmp(path, "/inward")) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    host.sin_port = htons(8443);
    ssize_t got = connect(fd, (struct sockaddr *)&host, sizeof host) ? -1 : read(fd, to, most);
    close(fd);
    return got < 0 ? (size_t)sprintf(to, "errno %d", errno) : (size_t)got;
  }
  if (!strcmp(path, "/listen")) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    host.sin_port = htons(7777);
    host.sin_addr.s_addr = htonl(INADDR_ANY);
    return tried(bind(fd, (struct sockaddr *)&host, sizeof host) || listen(fd, 1) ? -1 : 0, to);
  }
  if (!strcmp(path, "/eat"))
    for (;;) {
      char *more = malloc(1 << 20);
      if (!more) _exit(4);
      memset(more, 'x', 1 << 20);
      __asm__ volatile("" : : "r"(more) : "memory");
    }
  if (!strcmp(path, "/crash")) { raise(SIGSEGV); abort(); }
  if (!strcmp(path, "/exit")) _exit(42);
  if (!strcmp(path, "/flood")) {
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (size_t left = 64 * sizeof block; left > 0;) { /* a port of the console takes less at a time than a pipe */
      ssize_t written = write(1, block, left < sizeof block ? left : sizeof block);
      if (written <= 0) _exit(3);
      left -= (size_t)written;
    }
    _exit(0);
  }
  return (size_t)sprintf(to, "unknown");
}

static int app(void) {
  static char request[4096], body[65536], head[256];
  struct sockaddr_in any = {AF_INET, htons(80), {htonl(INADDR_LOOPBACK)}, {0}};
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  signal(SIGTERM, stopped);
  signal(SIGPIPE, SIG_IGN);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 16)) { perror("listen"); return 1; }
  if (write(1, "to stdout\n", 10) < 0 || write(2, "to stderr\n", 10) < 0) return 1;
  for (;;) {
    int peer = accept(listener, NULL, NULL);
    ssize_t got = read(peer, request, sizeof request - 1);
    if (got > 0) {
      request[got] = 0;
      char *path = strchr(request, ' '), *end = path ? strchr(path + 1, ' ') : NULL;
      if (end) {
        *end = 0;
        size_t length = answer(path + 1, body, sizeof body);
        int head_length = sprintf(head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", length);
        if (write(peer, head, head_length) < 0 || write(peer, body, length) < 0) {}
      }
    }
    close(peer);
  }
}

static int get(const char *socket_path, const char *path) {
  static char all[131072];
  struct sockaddr_un to = {AF_UNIX, {0}};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  size_t length = 0;
  ssize_t got;
  signal(SIGPIPE, SIG_IGN);
  alarm(20);
  strncpy(to.sun_path, socket_path, sizeof to.sun_path - 1);
  if (connect(fd, (struct sockaddr *)&to, sizeof to)) return 2;
  if (dprintf(fd, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) < 0) return 2;
  while (length < sizeof all - 1 && (got = read(fd, all + length, sizeof all - 1 - length)) > 0) length += (size_t)got;
  all[length] = 0;
  char *body = strstr(all, "\r\n\r\n");
  if (strncmp(all, "HTTP/1.1 200 ", 13) || !body) return 3;
  return fwrite(body + 4, 1, length - (size_t)(body + 4 - all), stdout) ? 0 : 4;
}

static int another_init(void) {
  static char config[65536];
  char order[16];
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1024};
  size_t length = slurp("/config", config, sizeof config);
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  /* Who is told to stop was heard. */
  if (connect(fd, (struct sockaddr *)&host, sizeof host) || write(fd, "hello\nstarted\n", 14) != 14 || read(fd, order, sizeof order) <= 0) return 1;
  if (memmem(config, length, "DEED=poweroff", 13)) reboot(RB_POWER_OFF);
  if (memmem(config, length, "DEED=reboot", 11)) reboot(RB_AUTOBOOT);
  return 0;
}

int main(int count, char **words) {
  const char *name = strrchr(words[0], '/') ? strrchr(words[0], '/') + 1 : words[0];
  if (!strcmp(name, "app")) return app();
  if (!strcmp(name, "get") && count == 3) return get(words[1], words[2]);
  if (!strcmp(name, "verdict") && count == 2 && !iopl(3)) outb(atoi(words[1]) ? 17 : 16, 0xf4);
  if (!strcmp(name, "trace") && count == 2) return ptrace(PTRACE_SEIZE, atoi(words[1]), NULL, NULL) ? (perror("trace"), 1) : 0;
  if (!strcmp(name, "init.krun")) return another_init();
  return 64;
}
