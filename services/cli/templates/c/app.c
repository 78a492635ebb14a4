/* {{name}}: answers HTTP on 127.0.0.1:$PORT, one request after the other, with nothing but the C library. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The platform asks for /api/status to learn whether the app works. */
static const char *answer(const char *path, const char **status) {
    *status = "200 OK";
    if (!strcmp(path, "/api/status")) return "OK";
    if (!strcmp(path, "/")) return "Hello from {{name}}\n";
    *status = "404 Not Found";
    return "there is nothing here\n";
}

static void serve(int client) {
    char head[16384], path[1024] = "", reply[2048];
    struct timeval patience = {10, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    size_t length = 0;
    do {
        ssize_t got = read(client, head + length, sizeof head - 1 - length);
        if (got <= 0) return;
        length += (size_t)got;
        head[length] = 0;
    } while (!strstr(head, "\r\n\r\n") && length < sizeof head - 1);
    sscanf(head, "%*15s %1023s", path);
    const char *status, *body = answer(path, &status);
    int size = snprintf(reply, sizeof reply,
                        "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n%s", status, strlen(body), body);
    if (write(client, reply, (size_t)size) < 0) perror("write");
}

int main(void) {
    const char *port = getenv("PORT");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((unsigned short)atoi(port ? port : "8080"));
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 64)) {
        perror("listen");
        return 1;
    }
    printf("{{name}} listens on port %d\n", ntohs(at.sin_port));
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        serve(client);
        close(client);
    }
}
