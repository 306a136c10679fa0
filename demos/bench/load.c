/* The load: many connections that send and await answers, told what to do on standard input.
 *
 *     load KIND PORT CONNECTIONS IDLE SEND EXPECT LINE
 *
 * KIND is tcp, tls, udp or close (a new connection for each exchange). An exchange sends SEND bytes,
 * with a newline at the end of each LINE of them, and awaits EXPECT bytes. All connections are
 * opened and make one exchange; then "ready" is printed. Each line read is one run over the first
 * CONNECTIONS, the IDLE others stay silent:
 *
 *     count N           N exchanges, the next one on a connection when its last was answered
 *     time SECONDS      the same until the time is up
 *     rate R SECONDS    R * SECONDS exchanges, R of them in a second at the mean and at random as
 *                       strangers come (exponential gaps), the same each time; each is begun at its
 *                       time whether others were answered or not, and counts from that time
 *
 * and is answered by a line: exchanges, seconds, seconds of CPU that the load took, and the
 * latencies that 50, 99 and 99.9 % did not exceed, in microseconds. `load.py` does the same.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
static SSL_CTX *context;
#else
typedef void SSL;
#endif

enum { TCP, TLS_, UDP, CLOSE } kind;
enum { BUFFER = 1 << 18, EVENTS = 1024 };

typedef struct {
    int fd, writing;
    SSL *ssl;
    long owed;           /* bytes still to be sent */
    long got;            /* bytes of the next answer that have come */
    long open;           /* exchanges begun and not answered */
    long answered;       /* exchanges of this run */
    double since;        /* when the exchange was begun */
} Connection;

static Connection *connections;
static int active, poller, port;
static long send_size, expect, line_size;
static char *message, buffer[BUFFER];

static struct {          /* the run that is under way */
    long limit, begun, answered;
    double start, deadline, rate;
    double *due;         /* with a rate: when each exchange is to be begun, from the start */
    float *latencies;
    long room;
} run;

static double clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static double now(void) { return clock_of(CLOCK_MONOTONIC); }

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Reading and writing ------------------------------------------------------------------------- */

static void watch(Connection *c, int how, int writing) {
    struct epoll_event e = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    c->writing = writing;
    if (epoll_ctl(poller, how, c->fd, &e)) fail("epoll_ctl");
}

static long get(Connection *c) {
#ifdef TLS
    if (c->ssl) {
        int n = SSL_read(c->ssl, buffer, BUFFER);
        if (n > 0) return n;
        int why = SSL_get_error(c->ssl, n);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return -1;
    }
#endif
    return read(c->fd, buffer, BUFFER);
}

static long put(Connection *c, const char *data, long size) {
#ifdef TLS
    if (c->ssl) {
        int n = SSL_write(c->ssl, data, size);
        if (n > 0) return n;
        int why = SSL_get_error(c->ssl, n);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return -1;
    }
#endif
    return send(c->fd, data, size, MSG_NOSIGNAL);
}

/* Send what is owed; if the kernel takes no more, wait until it does. */
static void flush(Connection *c) {
    while (c->owed) {
        long left = (c->owed - 1) % send_size + 1; /* of this message */
        long n = put(c, message + send_size - left, left);
        if (n < 0) {
            if (errno != EAGAIN) fail("send");
            break;
        }
        c->owed -= n;
    }
    if (c->writing != (c->owed > 0)) watch(c, EPOLL_CTL_MOD, c->owed > 0);
}

/* Connections --------------------------------------------------------------------------------- */

static void connect_it(Connection *c) {
    static unsigned turn;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = to;
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, kind == UDP ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket");
    if (kind == CLOSE) { /* from many addresses: no port waits for its last connection to fade */
        from.sin_port = 0;
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + turn++ % 250);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (void *)&from, sizeof from)) fail("bind");
    }
    if (kind != UDP) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (void *)&to, sizeof to)) fail("connect");
#ifdef TLS
    if (kind == TLS_) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        if (SSL_connect(c->ssl) != 1) fail("TLS handshake");
    }
#endif
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, 0);
}

static void begin(Connection *c, double when) {
    run.begun++;
    c->open++;
    c->since = when;
    if (c->fd < 0) connect_it(c);
    c->owed += send_size;
    if (c->owed == send_size) flush(c); /* else it is under way already */
}

static void answered(Connection *c) {
    double t = now(), planned = c->since;
    if (run.rate) planned = run.start + run.due[c - connections + c->answered * active];
    if (run.answered == run.room) {
        run.room = run.room ? 2 * run.room : 1 << 16;
        run.latencies = realloc(run.latencies, run.room * sizeof(float));
    }
    run.latencies[run.answered++] = (t - planned) * 1e6;
    c->answered++;
    c->open--;
    if (kind == CLOSE) {
        close(c->fd);
        c->fd = -1;
    }
    if (!run.rate && run.begun < run.limit && t < run.deadline) begin(c, t);
}

static void receive(Connection *c) {
    long n;
    do {
        n = get(c);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0 && kind == UDP) return; /* told of an earlier datagram */
        if (n <= 0) fail("the server closed a connection");
        if (kind == UDP && !c->open) return; /* the answer to a datagram that was sent again */
        for (c->got += n; c->got >= expect && c->fd >= 0;) {
            c->got -= expect;
            answered(c);
            if (kind == CLOSE) return;
        }
    } while (c->ssl); /* more may be there that the kernel does not know of */
}

/* Runs ---------------------------------------------------------------------------------------- */

/* Plan when so many exchanges are to be begun. */
static void plan(long count, double rate) {
    double t = 0;
    run.due = realloc(run.due, count * sizeof(double));
    srand48(1);
    for (long i = 0; i < count; i++) run.due[i] = t -= log(1 - drand48()) / rate;
}

/* Begin what is due; return how many milliseconds may be slept. */
static int begin_due(void) {
    double t = now();
    while (run.begun < run.limit) {
        double due = run.start + run.due[run.begun];
        if (due > t) return due - t > 0.002 ? (int)((due - t) * 1000) - 1 : 0;
        begin(&connections[run.begun % active], due);
    }
    return 500;
}

static void send_again(Connection *c, int count) {
    for (; count--; c++)
        if (kind == UDP && c->open && !c->owed) { /* a datagram was lost */
            c->owed = send_size;
            flush(c);
        }
}

static void go(Connection *first, int count, long limit, double seconds, double rate) {
    struct epoll_event events[EVENTS];
    run.limit = limit, run.begun = run.answered = 0, run.rate = rate;
    if (rate) plan(limit, rate);
    run.start = now(), run.deadline = run.start + seconds;
    for (int i = 0; i < count; i++) first[i].answered = 0;
    for (int i = 0; i < count && !rate && run.begun < limit; i++) begin(&first[i], now());
    for (;;) {
        int wait = rate ? begin_due() : 500;
        if (run.answered == run.begun && (!rate || run.begun == limit)) break;
        int n = epoll_wait(poller, events, EVENTS, wait);
        if (!n && wait == 500) send_again(first, count);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & ~EPOLLOUT) receive(c);
        }
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void obey(const char *order) {
    double a = 0, b = 0, cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    if (sscanf(order, "count %lf", &a) == 1) go(connections, active, a, 1e9, 0);
    else if (sscanf(order, "time %lf", &a) == 1) go(connections, active, 1L << 60, a, 0);
    else if (sscanf(order, "rate %lf %lf", &a, &b) == 2) go(connections, active, a * b, 1e9, a);
    else exit(2);
    double seconds = now() - run.start;
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    qsort(run.latencies, run.answered, sizeof(float), ascending);
    printf("%ld %.9f %.9f", run.answered, seconds, cpu);
    for (int i = 0; i < 3; i++) {
        long at = run.answered * (double[]){0.5, 0.99, 0.999}[i];
        printf(" %.1f", run.answered ? run.latencies[at < run.answered ? at : run.answered - 1] : 0);
    }
    printf("\n");
    fflush(stdout);
}

int main(int count, char **words) {
    if (count != 8) return 2;
    for (const char **k = (const char *[]){"tcp", "tls", "udp", "close"}; strcmp(*k, words[1]); k++)
        if (++kind > CLOSE) return 2;
    port = atoi(words[2]), active = atoi(words[3]);
    int all = active + atoi(words[4]);
    send_size = atol(words[5]), expect = atol(words[6]), line_size = atol(words[7]);
    message = malloc(send_size);
    for (long i = 0; i < send_size; i++) message[i] = (i + 1) % line_size ? 'x' : '\n';
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    if (kind == TLS_) return 3;
#endif
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    connections = calloc(all, sizeof *connections);
    for (int i = 0; i < all; i++) connect_it(&connections[i]);
    for (int i = 0; i < all; i += 100) { /* not all at once: a server may be slow to accept */
        int some = all - i < 100 ? all - i : 100;
        go(connections + i, some, some, 1e9, 0);
    }
    printf("ready\n");
    fflush(stdout);
    for (char order[100]; fgets(order, sizeof order, stdin);) obey(order);
}
