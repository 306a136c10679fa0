/* An echo server on epoll in C, on one socket that listens: what the kernel itself takes.
 *
 * A message goes through a buffer that all connections share. What the kernel does not take at once
 * is copied and kept, and nothing is read from that connection until it is sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, EVENTS = 1024 };

typedef struct {
    int fd;
    char *unsent;   /* what was kept, or NULL */
    long from, end; /* the part of it that is still to be sent */
} Connection;

static int poller;
static char buffer[BUFFER];

static void watch(Connection *c, int how, int events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, how, c->fd, &e);
}

static void end(Connection *c) {
    close(c->fd);
    free(c->unsent);
    free(c);
}

static void read_some(Connection *c) {
    long got = recv(c->fd, buffer, BUFFER, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        end(c);
        return;
    }
    long sent = send(c->fd, buffer, got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        end(c);
        return;
    }
    if (sent < 0) sent = 0;
    if (sent < got) {
        c->from = 0, c->end = got - sent;
        c->unsent = malloc(c->end);
        memcpy(c->unsent, buffer + sent, c->end);
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

static void send_rest(Connection *c) {
    long sent = send(c->fd, c->unsent + c->from, c->end - c->from, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        end(c);
        return;
    }
    if (sent > 0) c->from += sent;
    if (c->from == c->end) {
        free(c->unsent);
        c->unsent = NULL;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    Connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

void serve(int listener) {
    struct epoll_event events[EVENTS];
    poller = epoll_create1(EPOLL_CLOEXEC);
    Connection listening = {.fd = listener};
    watch(&listening, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (c->fd == listener) accept_one(listener);
            else if (c->unsent) send_rest(c);
            else read_some(c);
        }
    }
}
