// What the kernel allows a server of several processes: the yardstick's accept rows with nothing but system calls.
// usage: accept pass|claim|shared WORKERS
// It prints its port, and serves one byte, its number, to each connection until it is killed.
//
// pass    one process accepts and passes to the workers in turn, and closes its copy at once.
// claim   the same, but it keeps its copy until the worker has claimed the connection by a word of shared memory.
// shared  every worker accepts on the one socket.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DIE(x) do { perror(x); exit(1); } while (0)
#define BATCH 64
#define SLOTS 1024 // per worker
#define MAXWORKERS 64

// A word of the table: the sequence above, the state below. It is only ever changed as a whole.
enum { OFFERED = 1, CLAIMED = 2 };
#define WORD(seq, state) ((uint64_t)(seq) << 8 | (state))

static uint64_t (*table)[SLOTS];

struct worker {
	int sock;
	uint64_t head, tail; // offers made, offers whose copy is closed
	int kept[SLOTS];
	int fds[BATCH], n; // of this turn
} workers[MAXWORKERS];

struct frame { uint64_t first; uint32_t n, claim; };

static int start(int n) { // forks n workers; the parent gets -1
	for (int i = 0; i < n; i++) {
		pid_t p = fork();
		if (p < 0) DIE("fork");
		if (p == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			return i;
		}
	}
	return -1;
}

static void serve(int fd, char id, int kept) {
	if (send(fd, &id, 1, MSG_NOSIGNAL) < 0) {} // the client has gone
	if (kept) shutdown(fd, SHUT_RDWR);         // or the other copy would delay the end
	close(fd);
}

static void work(int i, int sock) {
	union { struct cmsghdr h; char buf[CMSG_SPACE(BATCH * sizeof(int))]; } u;
	for (;;) {
		struct frame f;
		struct iovec io = {&f, sizeof f};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
		if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != sizeof f) exit(1);
		int *fds = (int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
		for (uint32_t k = 0; k < f.n; k++) {
			if (!f.claim) {
				serve(fds[k], '0' + i, 0);
				continue;
			}
			uint64_t seq = f.first + k, offered = WORD(seq, OFFERED);
			if (__atomic_compare_exchange_n(&table[i][seq % SLOTS], &offered, WORD(seq, CLAIMED), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
				serve(fds[k], '0' + i, 1);
			else
				close(fds[k]);
		}
	}
}

// release closes the copies of what was claimed. A worker claims in order.
static void release(int i) {
	struct worker *w = &workers[i];
	while (w->tail < w->head && __atomic_load_n(&table[i][w->tail % SLOTS], __ATOMIC_SEQ_CST) == WORD(w->tail, CLAIMED))
		close(w->kept[w->tail++ % SLOTS]);
}

static void pass(int i, int claim) {
	struct worker *w = &workers[i];
	struct frame f = {w->head, w->n, claim};
	union { struct cmsghdr h; char buf[CMSG_SPACE(BATCH * sizeof(int))]; } u;
	struct iovec io = {&f, sizeof f};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = CMSG_SPACE(w->n * sizeof(int))};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(w->n * sizeof(int));
	memcpy(CMSG_DATA(h), w->fds, w->n * sizeof(int));
	for (int k = 0; k < w->n && claim; k++, w->head++) {
		w->kept[w->head % SLOTS] = w->fds[k];
		__atomic_store_n(&table[i][w->head % SLOTS], WORD(w->head, OFFERED), __ATOMIC_SEQ_CST);
	}
	if (sendmsg(w->sock, &m, MSG_NOSIGNAL) != sizeof f) DIE("sendmsg");
	for (int k = 0; k < w->n && !claim; k++) close(w->fds[k]);
	w->n = 0;
	release(i);
}

static void dispatch(int l, int n, int claim) {
	struct pollfd p = {l, POLLIN, 0};
	for (int next = 0;;) {
		int kept = 0, room = BATCH;
		for (int i = 0; i < n; i++) {
			release(i);
			kept |= workers[i].tail < workers[i].head;
			if (SLOTS - (workers[i].head - workers[i].tail) < BATCH) room = 0;
		}
		if (poll(&p, 1, kept ? 5 : -1) < 0 && errno != EINTR) DIE("poll");
		for (int fd; room-- > 0 && (fd = accept4(l, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; next = (next + 1) % n) {
			struct worker *w = &workers[next];
			w->fds[w->n++] = fd;
		}
		for (int i = 0; i < n; i++)
			if (workers[i].n) pass(i, claim);
	}
}

static void share(int l, int i) {
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, l, &e)) DIE("epoll_ctl");
	for (;;) {
		epoll_wait(ep, &e, 1, -1);
		for (int k = 0, fd; k < 8 && (fd = accept4(l, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; k++) serve(fd, '0' + i, 0);
	}
}

int main(int c, char **v) {
	int n = c == 3 ? atoi(v[2]) : 0;
	if (n < 1 || n > MAXWORKERS) return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	if (bind(l, (void *)&a, len) || listen(l, 4096) || getsockname(l, (void *)&a, &len)) DIE("listen");
	table = mmap(0, n * sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED) DIE("mmap");
	int shared = !strcmp(v[1], "shared"), theirs[MAXWORKERS];
	for (int i = 0; i < n; i++) {
		int sv[2];
		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv)) DIE("socketpair");
		workers[i].sock = sv[0];
		theirs[i] = sv[1];
	}
	int i = start(n);
	if (i >= 0) {
		if (shared) share(l, i);
		close(l);
		for (int k = 0; k < n; k++) close(workers[k].sock);
		work(i, theirs[i]);
	}
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	if (shared) for (;;) pause();
	dispatch(l, n, !strcmp(v[1], "claim"));
}
