/* The open loop: requests at random times (Poisson) over keep-alive HTTP/1.1 connections, whatever is answered.
 *
 *   paced_load PORT REQUESTS_PER_S DURATION_S CONNECTIONS SEED EVENTS REQUEST_FILE LATENCIES_FILE
 *
 * The clock starts when all connections are made. A latency counts from when its request was due, so that one
 * that had to wait for a free connection is late. Latencies are written as doubles, in seconds; printed are the
 * numbers of right and of wrong answers, and the CPU seconds that this took. A right answer has status 200, and
 * EVENTS events where it is chunked. It is in C because it shares two cores with what it measures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 65536
#define MAX_HEAD 8192
#define PATIENCE_S 30.0 /* for the last answers */
#define END "\r\n0\r\n\r\n"
#define END_BYTES 7

typedef struct {
    int fd;
    double due_s;
    int in_body, is_right, is_chunked;
    long missing, events; /* bytes of the body that are to come; events that came */
    size_t head_bytes;
    char head[MAX_HEAD];  /* until the body begins; then its first bytes are the end of what came last */
} Connection;

static char *request;
static size_t request_bytes;
static long expected_events, right, wrong;
static double *latencies;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void begin(Connection *c, double due_s) {
    c->due_s = due_s;
    c->in_body = 0;
    c->head_bytes = 0;
    if (send(c->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) fail("send");
}

/* Reads the head, of which all has come; the body begins at `body`. */
static void read_head(Connection *c, char *body) {
    char *length;
    *(body - 2) = 0;
    length = strcasestr(c->head, "\r\ncontent-length:");
    c->in_body = 1;
    c->is_chunked = length == NULL;
    c->missing = length ? atol(length + 17) : 0;
    c->events = 0;
    c->is_right = !strncmp(c->head, "HTTP/1.1 200", 12) && c->is_chunked == (expected_events > 0);
}

/* Takes bytes of a body; returns whether it has ended. */
static int take_body(Connection *c, const char *data, size_t size) {
    size_t kept;
    if (!c->is_chunked) {
        c->missing -= size;
        c->is_right &= c->missing >= 0;
        return c->missing <= 0;
    }
    for (size_t i = 0; i < size; i++) c->events += data[i] == '[';
    kept = size >= END_BYTES ? 0 : c->head_bytes; /* the end may come in two reads */
    if (kept > END_BYTES - size) {
        memmove(c->head, c->head + kept - (END_BYTES - size), END_BYTES - size);
        kept = END_BYTES - size;
    }
    if (size > END_BYTES) data += size - END_BYTES, size = END_BYTES;
    memcpy(c->head + kept, data, size);
    c->head_bytes = kept + size;
    return c->head_bytes == END_BYTES && !memcmp(c->head, END, END_BYTES);
}

/* Takes what a connection has received; returns whether its answer is complete. */
static int take(Connection *c, char *data, size_t size) {
    char *end;
    size_t before;
    if (!c->in_body) {
        if (c->head_bytes + size >= MAX_HEAD && !memmem(data, size, "\r\n\r\n", 4)) fail("a long head");
        before = c->head_bytes;
        size_t taken = size < MAX_HEAD - 1 - before ? size : MAX_HEAD - 1 - before;
        memcpy(c->head + before, data, taken);
        c->head[before + taken] = 0;
        if (!(end = strstr(c->head, "\r\n\r\n"))) return c->head_bytes += taken, 0;
        end += 4;
        size_t of_head = end - c->head - before;
        read_head(c, end);
        c->head_bytes = 0;
        data += of_head;
        size -= of_head;
    }
    if (!take_body(c, data, size)) return 0;
    if (c->is_right && c->events == expected_events)
        latencies[right++] = now_s() - c->due_s;
    else
        wrong++;
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 9) return fprintf(stderr, "see the top of paced_load.c\n"), 2;
    double rate = atof(argv[2]), duration_s = atof(argv[3]);
    int port = atoi(argv[1]), count = atoi(argv[4]), idle_count = 0, open = 0, epoll = epoll_create1(0);
    long most = (long)(rate * duration_s * 1.5) + 10000, waiting_from = 0, waiting_to = 0;
    Connection *all = calloc(count, sizeof *all), **idle = calloc(count, sizeof *idle);
    double *waiting = malloc(most * sizeof *waiting);
    struct epoll_event events[64];
    static char data[READ_BYTES];
    srand48(atol(argv[5]));
    expected_events = atol(argv[6]);
    FILE *file = fopen(argv[7], "rb");
    request = malloc(1 << 20);
    if (!file || !(request_bytes = fread(request, 1, 1 << 20, file))) fail(argv[7]);
    fclose(file);
    latencies = malloc(most * sizeof *latencies);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = &all[i]};
        all[i].fd = connected(port);
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
        idle[idle_count++] = &all[i];
    }
    double cpu_before_s = cpu_s(), begun_s = now_s(), due_s = begun_s, end_s = begun_s + duration_s, at_s;
    for (long sent = 0; (at_s = now_s()) < end_s + PATIENCE_S;) {
        for (; due_s <= at_s && due_s < end_s && sent < most; due_s -= log1p(-drand48()) / rate, sent++) {
            if (idle_count) begin(idle[--idle_count], due_s), open++;
            else waiting[waiting_to++] = due_s;
        }
        int is_over = due_s >= end_s || sent == most;
        if (is_over && !open) break;
        double wait_s = is_over ? 0.1 : fmax(0.0, due_s - now_s());
        struct timespec timeout = {(time_t)wait_s, (long)((wait_s - (time_t)wait_s) * 1e9)};
        int ready = epoll_pwait2(epoll, events, 64, &timeout, NULL);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            ssize_t size = recv(c->fd, data, READ_BYTES, 0);
            if (size <= 0) fail("a connection was closed");
            if (!take(c, data, size)) continue;
            if (waiting_from < waiting_to) begin(c, waiting[waiting_from++]);
            else idle[idle_count++] = c, open--;
        }
    }
    double used_s = cpu_s() - cpu_before_s;
    if (!(file = fopen(argv[8], "wb")) || (long)fwrite(latencies, sizeof *latencies, right, file) != right) fail(argv[8]);
    fclose(file);
    printf("%ld %ld %.6f\n", right, wrong + open + (waiting_to - waiting_from), used_s);
    return 0;
}
