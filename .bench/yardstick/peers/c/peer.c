// What the kernel allows: the yardstick's rows with nothing but system calls.
// usage: peer fds K SECONDS | stream SIZE SECONDS | pingpong SIZE SECONDS
// It prints: operations per second, processor ns per operation of both processes, p50 us, p99 us.
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DIE(x) do { perror(x); exit(1); } while (0)

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(int who) {
	struct rusage r;
	getrusage(who, &r);
	return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static int cmp(const void *a, const void *b) {
	double x = *(double *)a, y = *(double *)b;
	return x < y ? -1 : x > y;
}

// The sender passes k fresh duplicates a message and closes its own; the receiver closes them.
static long fds_send(int s, int k, double end) {
	int src = socket(AF_INET, SOCK_STREAM, 0), fds[253];
	union { struct cmsghdr h; char buf[CMSG_SPACE(sizeof fds)]; } u;
	char b[8] = {1};
	long n = 0;
	for (;;) {
		if ((n & 1023) < k && now() >= end) break;
		for (int i = 0; i < k; i++) fds[i] = dup(src);
		struct iovec io = {b, sizeof b};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = CMSG_SPACE(k * sizeof(int))};
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(k * sizeof(int));
		memcpy(CMSG_DATA(h), fds, k * sizeof(int));
		if (sendmsg(s, &m, MSG_NOSIGNAL) != sizeof b) DIE("sendmsg");
		for (int i = 0; i < k; i++) close(fds[i]);
		n += k;
	}
	return n;
}

static void fds_recv(int s) {
	union { struct cmsghdr h; char buf[CMSG_SPACE(253 * sizeof(int))]; } u;
	char b[8];
	for (;;) {
		struct iovec io = {b, sizeof b};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
		ssize_t n = recvmsg(s, &m, MSG_CMSG_CLOEXEC);
		if (n < 0) DIE("recvmsg");
		if (n == 0) return;
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
			int *f = (int *)CMSG_DATA(h), nf = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (int j = 0; j < nf; j++) close(f[j]);
		}
	}
}

int main(int c, char **v) {
	if (c != 4) return 2;
	int k = atoi(v[2]), sv[2];
	double secs = atof(v[3]), p50 = 0, p99 = 0;
	int fds = !strcmp(v[1], "fds"), stream = !strcmp(v[1], "stream");
	if (socketpair(AF_UNIX, stream ? SOCK_STREAM : SOCK_SEQPACKET, 0, sv)) DIE("socketpair");
	pid_t p = fork();
	if (p == 0) {
		close(sv[0]);
		char *b = malloc(1 << 20);
		ssize_t n;
		if (fds) fds_recv(sv[1]);
		else if (stream) while (read(sv[1], b, 1 << 16) > 0) {}
		else while ((n = read(sv[1], b, 1 << 16)) > 0) if (write(sv[1], b, n) != n) DIE("write");
		_exit(0);
	}
	close(sv[1]);
	double t0 = now(), end = t0 + secs;
	long n = 0;
	if (fds) {
		n = fds_send(sv[0], k, end);
	} else if (stream) { // length-prefixed messages, coalesced to 32 KiB
		char *b = calloc(1, 1 << 16), *msg = calloc(1, k);
		while (now() < end) {
			size_t at = 0;
			while (at + 4 + k <= 32768) {
				uint32_t len = k;
				memcpy(b + at, &len, 4);
				memcpy(b + at + 4, msg, k);
				at += 4 + k;
				n++;
			}
			for (size_t o = 0; o < at;) {
				ssize_t w = write(sv[0], b + o, at - o);
				if (w < 0) DIE("write");
				o += w;
			}
		}
	} else {
		char *b = calloc(1, k);
		long room = 8000000;
		double *lat = malloc(room * sizeof *lat);
		for (double t = t0; t < end && n < room;) {
			if (write(sv[0], b, k) != k || read(sv[0], b, k) != k) DIE("pingpong");
			double u = now();
			lat[n++] = (u - t) * 1e6;
			t = u;
		}
		qsort(lat, n, sizeof *lat, cmp);
		p50 = lat[n / 2];
		p99 = lat[n * 99 / 100];
	}
	close(sv[0]);
	waitpid(p, 0, 0);
	double t = now() - t0, used = cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN);
	printf("%.0f %.1f %.2f %.2f\n", n / t, used / n * 1e9, p50, p99);
	return 0;
}
