// Sends or receives datagrams on sockets that it inherits, and says how many and what that cost.
//
//   traffic send SECONDS RATE SIZE CHANNEL FD...     RATE 0: as fast as it can; CHANNEL 0: no header
//   traffic recv SECONDS FD...                      or until SIGTERM
//
// Prints "packets nanoseconds": the time its thread ran, which on a veth is also the time of all that the packet
// causes in the kernel until it waits somewhere.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, LARGEST = 2048 };
static char buffers[BATCH][LARGEST];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];
static volatile sig_atomic_t is_over;

static uint64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void prepare(size_t len)
{
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i], len};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
}

// So many datagrams, a share of them on each socket in turn.
static uint64_t send_some(uint64_t count, const int *sockets, int sockets_count, int *next)
{
    uint64_t sent = 0, share = (count + sockets_count - 1) / sockets_count;
    share = share > BATCH ? BATCH : share;
    while (sent < count) {
        uint64_t some = count - sent < share ? count - sent : share;
        int done = sendmmsg(sockets[*next], messages, some, 0);
        *next = (*next + 1) % sockets_count;
        if (done < 0 && errno != ECONNREFUSED)
            perror("sendmmsg"), exit(1);
        sent += done > 0 ? done : 0;
    }
    return sent;
}

static uint64_t flood(uint64_t end, const int *sockets, int count)
{
    uint64_t sent = 0;
    for (int next = 0; now(CLOCK_MONOTONIC) < end;)
        sent += send_some(BATCH, sockets, count, &next);
    return sent;
}

// Waits for the next of a thousand ticks a second. They stand fast: how often a thread wakes, and what it looks at then, is
// the same however long its work or another's takes, so that it falls out of a difference.
static void wait_for_tick(struct timespec *tick)
{
    tick->tv_nsec += 1000000;
    if (tick->tv_nsec >= 1000000000)
        tick->tv_sec++, tick->tv_nsec -= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, tick, NULL);
}

// What is due, at each tick.
static uint64_t pace(uint64_t end, uint64_t rate, const int *sockets, int count)
{
    uint64_t start = now(CLOCK_MONOTONIC), sent = 0, at;
    struct timespec tick;
    clock_gettime(CLOCK_MONOTONIC, &tick);
    for (int next = 0; (at = now(CLOCK_MONOTONIC)) < end; wait_for_tick(&tick)) {
        uint64_t due = (at - start) / 1000 * rate / 1000000;
        if (due > sent)
            sent += send_some(due - sent, sockets, count, &next);
    }
    return sent;
}

static void end_it(int number) { is_over = number; }

// What is there, at each tick.
static uint64_t receive(uint64_t end, const int *sockets, int count)
{
    uint64_t received = 0;
    struct timespec tick;
    prepare(LARGEST);
    signal(SIGTERM, end_it);
    for (clock_gettime(CLOCK_MONOTONIC, &tick); !is_over && now(CLOCK_MONOTONIC) < end; wait_for_tick(&tick))
        for (int i = 0, got; i < count; i++)
            do {
                got = recvmmsg(sockets[i], messages, BATCH, MSG_DONTWAIT, NULL);
                received += got > 0 ? got : 0;
            } while (got == BATCH);
    return received;
}

int main(int argc, char **argv)
{
    int sending = argc > 1 && !strcmp(argv[1], "send"), first = sending ? 6 : 3, count = argc - first;
    if (count < 1)
        return 2;
    int *sockets = calloc(count, sizeof *sockets);
    for (int i = 0; i < count; i++)
        sockets[i] = atoi(argv[first + i]);
    uint64_t end = now(CLOCK_MONOTONIC) + (uint64_t)(atof(argv[2]) * 1e9), packets;
    uint64_t before = now(CLOCK_THREAD_CPUTIME_ID);
    if (sending) {
        uint64_t rate = atoll(argv[3]), size = atoll(argv[4]), channel = atoll(argv[5]);
        size_t header = channel ? 4 : 0;
        prepare(size + header);
        for (int i = 0; i < BATCH; i++) {
            uint16_t words[2] = {htons(channel), htons(size)};
            memcpy(buffers[i], words, header);
            memset(buffers[i] + header, 0xA5, size);
        }
        packets = rate ? pace(end, rate, sockets, count) : flood(end, sockets, count);
    } else {
        packets = receive(end, sockets, count);
    }
    printf("%llu %llu\n", (unsigned long long)packets, (unsigned long long)(now(CLOCK_THREAD_CPUTIME_ID) - before));
    return 0;
}
