/* Queues of captured packets, and the thread that writes them. All is under one mutex, but for what
 * the thread alone has of a file while it writes: nobody else looks at that once it is open. */
#include "capture_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "penstock/base/buf.h"
#include "penstock/base/clock.h"
#include "penstock/base/err.h"
#include "penstock/base/list.h"
#include "penstock/base/log.h"
#include "penstock/net/capture.h"
#include "penstock/proto/pcapng.h"

enum {
    QUEUED_MAX = 16 * 1024 * 1024, /* of all files together */
    KEPT_MAX = 1024 * 1024,        /* a queue that has been larger gives its memory back */
    LINGER_NS = 10 * 1000000,      /* packets gather for so long, so that a write is worth it */
};

struct capture_file {
    struct list node; /* in captures.files */
    char *path;
    unsigned refs;
    uint64_t max_bytes; /* 0: none */
    struct buf filling;
    uint64_t missing_bytes; /* that found no room; or could not be written */
    /* the thread's */
    struct buf draining;
    int fd;        /* -1: it could not be opened again */
    uint64_t size; /* of the file */
    int err;       /* what the last write has said, told already */
    bool told_missing;
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake;     /* for the thread */
    pthread_cond_t finished; /* for captures_stop() */
    struct list files;       /* the one written last is the last */
    size_t queued;           /* bytes in all queues, and those that are being written */
    pthread_t thread;
    bool runs;
    bool sleeps; /* until there is anything to write */
    bool stop;   /* to end when all is written */
} captures = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void init_once(void)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&captures.wake, &monotonic);
    pthread_cond_init(&captures.finished, &monotonic);
    pthread_condattr_destroy(&monotonic);
    list_init(&captures.files);
}

static void lock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    pthread_mutex_lock(&captures.mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&captures.mutex);
}

static struct timespec in_ns(uint64_t ns)
{
    uint64_t at = clock_now_ns() + ns;
    return (struct timespec){.tv_sec = (time_t)(at / 1000000000),
                             .tv_nsec = (long)(at % 1000000000)};
}

/* ---- the file; by the thread, or before it has it ---- */

static bool begins_as_capture(int fd)
{
    uint32_t magic;
    return pread(fd, &magic, sizeof magic, 0) == (ssize_t)sizeof magic && magic == PCAPNG_MAGIC;
}

/* Half a block would end the file for its readers. */
static void take_back(const struct capture_file *f, size_t n)
{
    struct stat st;
    bool ours = fstat(f->fd, &st) == 0 && (uint64_t)st.st_size == f->size + n;
    if (n && ours && ftruncate(f->fd, (off_t)f->size))
        log_warn("capture \"%s\": it ends in the middle of a packet: %s", f->path,
                 err_text(-errno));
}

/* Writes all, or nothing that stays. Returns 0 or a negative errno. */
static int write_whole(struct capture_file *f, const void *bytes, size_t n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = write(f->fd, (const char *)bytes + done, n - done);
        if (put > 0) {
            done += (size_t)put;
        } else if (put == 0 || errno != EINTR) {
            int err = put ? -errno : -EIO;
            take_back(f, done);
            return err;
        }
    }
    f->size += n;
    return 0;
}

static int begin(struct capture_file *f)
{
    struct stat st;
    uint8_t head[PCAPNG_HEAD_MAX];
    if (fstat(f->fd, &st))
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    f->size = (uint64_t)st.st_size;
    if (f->size)
        return begins_as_capture(f->fd) ? 0 : -EEXIST;
    return write_whole(f, head, pcapng_write_head(head));
}

static int open_path(struct capture_file *f)
{
    /* O_NONBLOCK: a pipe in its place must not hold us up. */
    f->fd =
        open(f->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK,
             S_IRUSR | S_IWUSR);
    int err = f->fd < 0 ? -errno : begin(f);
    if (err && f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
    return err;
}

static int open_again(struct capture_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    return open_path(f);
}

/* Somebody may have taken it away, or begun another in its place. */
static bool is_still_there(const struct capture_file *f)
{
    struct stat ours, theirs;
    return f->fd >= 0 && fstat(f->fd, &ours) == 0 && lstat(f->path, &theirs) == 0 &&
           ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

/* The half that is full becomes PATH.1, in the place of the one before. */
static int rotate(struct capture_file *f)
{
    size_t len = strlen(f->path);
    char *older = malloc(len + 3);
    if (!older)
        return -ENOMEM;
    memcpy(older, f->path, len);
    memcpy(older + len, ".1", 3);
    int err = rename(f->path, older) ? -errno : 0;
    free(older);
    return err ? err : open_again(f);
}

/* How many bytes of the blocks fit into this half; 0: not even one. */
static size_t fitting(const struct capture_file *f, const char *blocks, size_t n, uint64_t half)
{
    size_t fit = 0;
    while (fit < n) {
        size_t size = pcapng_block_size(blocks + fit);
        bool first = !fit && f->size <= PCAPNG_HEAD_MAX;
        if (half && !first && f->size + fit + size > half)
            break;
        fit += size;
    }
    return fit;
}

/* Returns how many bytes of them could not be written. */
static size_t write_blocks(struct capture_file *f, uint64_t half)
{
    int err = is_still_there(f) ? 0 : open_again(f);
    while (!err && buf_len(&f->draining)) {
        size_t n = fitting(f, buf_bytes(&f->draining), buf_len(&f->draining), half);
        err = n ? write_whole(f, buf_bytes(&f->draining), n) : rotate(f);
        if (!err)
            buf_consume(&f->draining, n);
    }
    if (err && err != f->err)
        log_warn("capture \"%s\": packets are missing: %s", f->path, err_text(err));
    f->err = err;
    return buf_len(&f->draining);
}

static void free_file(struct capture_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    if (f->missing_bytes)
        log_warn("capture \"%s\": %" PRIu64 " bytes of packets are missing in all", f->path,
                 f->missing_bytes);
    buf_deinit(&f->filling);
    buf_deinit(&f->draining);
    free(f->path);
    free(f);
}

/* ---- the thread ---- */

static struct capture_file *next_with_work(void)
{
    list_for_each (node, next, &captures.files) {
        struct capture_file *f = container_of(node, struct capture_file, node);
        if (!f->refs || buf_len(&f->filling))
            return f;
    }
    return NULL;
}

/* How many there are is told at the end. */
static void tell_missing(struct capture_file *f, uint64_t missing)
{
    if (missing && !f->told_missing)
        log_warn("capture \"%s\": packets are missing: they come faster than the disk takes them",
                 f->path);
    f->told_missing = f->told_missing || missing;
}

/* Under the mutex, which it leaves meanwhile. Only this thread frees files. */
static void drain(struct capture_file *f)
{
    struct buf empty = f->draining;
    f->draining = f->filling;
    f->filling = empty;
    size_t n = buf_len(&f->draining);
    uint64_t half = f->max_bytes / 2, dropped = f->missing_bytes;
    unlock();
    tell_missing(f, dropped);
    size_t missing = n ? write_blocks(f, half) : 0;
    f->told_missing = f->told_missing || missing;
    if (f->draining.cap > KEPT_MAX)
        buf_deinit(&f->draining);
    else
        buf_consume(&f->draining, buf_len(&f->draining));
    lock();
    captures.queued -= n;
    f->missing_bytes += missing;
    list_remove(&f->node);
    if (f->refs || buf_len(&f->filling)) {
        list_push(&captures.files, &f->node); /* others first */
        return;
    }
    unlock();
    free_file(f);
    lock();
}

/* Under the mutex: until packets have gathered for a while. */
static void linger(void)
{
    struct timespec until = in_ns(LINGER_NS);
    while (!captures.stop && captures.queued < QUEUED_MAX / 2)
        if (pthread_cond_timedwait(&captures.wake, &captures.mutex, &until))
            break;
}

static void *run_writer(void *arg)
{
    lock();
    for (;;) {
        struct capture_file *f = next_with_work();
        if (f) {
            drain(f);
        } else if (captures.stop) {
            break;
        } else {
            captures.sleeps = true;
            while (captures.sleeps && !captures.stop)
                pthread_cond_wait(&captures.wake, &captures.mutex);
            linger();
        }
    }
    captures.runs = false;
    pthread_cond_signal(&captures.finished);
    unlock();
    return arg;
}

/* Under the mutex. Signals are for the main thread. */
static int start_thread(void)
{
    sigset_t all, before;
    if (captures.runs)
        return 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&captures.thread, NULL, run_writer, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    captures.runs = !err;
    return -err;
}

static void wake_thread(void)
{
    if (!captures.sleeps && captures.queued < QUEUED_MAX / 2)
        return;
    captures.sleeps = false;
    pthread_cond_signal(&captures.wake);
}

/* ---- for everybody ---- */

static struct capture_file *find(const char *path)
{
    list_for_each (node, next, &captures.files) {
        struct capture_file *f = container_of(node, struct capture_file, node);
        if (strcmp(f->path, path) == 0)
            return f;
    }
    return NULL;
}

static struct capture_file *make(const char *path, int *err)
{
    struct capture_file *f = calloc(1, sizeof *f);
    if (f)
        f->path = strdup(path);
    if (!f || !f->path) {
        free(f);
        *err = -ENOMEM;
        return NULL;
    }
    *err = open_path(f);
    if (!*err)
        return f;
    free(f->path);
    free(f);
    return NULL;
}

/* Under the mutex, which it leaves to open the file. */
static int add(const char *path, struct capture_file **out)
{
    int err;
    unlock();
    struct capture_file *f = make(path, &err);
    lock();
    if (!f)
        return err;
    *out = find(path); /* another thread may have been faster */
    err = *out ? 0 : start_thread();
    if (err || *out) {
        free_file(f);
        return err;
    }
    list_push(&captures.files, &f->node);
    *out = f;
    log_info("capture goes to \"%s\"", path);
    return 0;
}

int capture_file_open(const char *path, uint64_t max_bytes, struct capture_file **out)
{
    lock();
    *out = find(path);
    int err = *out ? 0 : add(path, out);
    if (!err) {
        (*out)->refs++;
        (*out)->max_bytes = max_bytes;
    }
    unlock();
    return err;
}

struct capture_file *capture_file_hold(struct capture_file *f)
{
    lock();
    f->refs++;
    unlock();
    return f;
}

void capture_file_drop(struct capture_file *f)
{
    if (!f)
        return;
    lock();
    if (--f->refs == 0)
        wake_thread();
    unlock();
}

uint8_t *capture_file_reserve(struct capture_file *f, size_t n)
{
    lock();
    char *room = captures.queued + n > QUEUED_MAX ? NULL : buf_reserve(&f->filling, n);
    if (room)
        return (uint8_t *)room;
    f->missing_bytes += n;
    unlock();
    return NULL;
}

void capture_file_commit(struct capture_file *f, size_t n)
{
    buf_commit(&f->filling, n);
    captures.queued += n;
    wake_thread();
    unlock();
}

void captures_stop(unsigned wait_ms)
{
    struct timespec until = in_ns((uint64_t)wait_ms * 1000000);
    lock();
    bool ran = captures.runs;
    captures.stop = true;
    pthread_cond_signal(&captures.wake);
    while (captures.runs)
        if (pthread_cond_timedwait(&captures.finished, &captures.mutex, &until))
            break;
    bool finished = !captures.runs;
    unlock();
    if (!ran)
        return;
    if (finished)
        pthread_join(captures.thread, NULL);
    else
        log_warn("captures: the disk takes no more; their ends are missing");
}
