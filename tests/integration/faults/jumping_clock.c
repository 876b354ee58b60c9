/* A calendar clock that is off by what a file says, for every process that preloads this.
 *
 * JUMPING_CLOCK names the file: 8 bytes, nanoseconds, little endian. Waits until a moment of that
 * clock look at it again every 50 ms, so that a jump moves their end as the kernel would. The
 * monotonic clocks are left alone, as a jump leaves them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define SLICE 50000000LL

static volatile int64_t zero;
static volatile int64_t *offset = &zero;

__attribute__((constructor)) static void find_offset(void) {
  const char *path = getenv("JUMPING_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) offset = page;
  close(file);
}

static int64_t nanoseconds(const struct timespec *when) {
  return when->tv_sec * SECOND + when->tv_nsec;
}

static struct timespec timespec_of(int64_t value) {
  struct timespec when = {value / SECOND, value % SECOND};
  return when;
}

static int64_t true_now(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  return nanoseconds(&now);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    *now = timespec_of(nanoseconds(now) + *offset);
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int64_t moment = true_now() + *offset;
  (void)zone;
  now->tv_sec = moment / SECOND;
  now->tv_usec = moment % SECOND / 1000;
  return 0;
}

time_t time(time_t *out) {
  time_t seconds = (time_t)((true_now() + *offset) / SECOND);
  if (out) *out = seconds;
  return seconds;
}

/* The next moment of the true clock to wait until; *last: the wait's own end falls on it. */
static struct timespec slice_end(const struct timespec *until, int *last) {
  int64_t end = nanoseconds(until) - *offset, soon = true_now() + SLICE;
  *last = end <= soon;
  if (end < 0) end = 0;
  return timespec_of(*last ? end : soon);
}

#define REAL(name, type, version)                               \
  static type real;                                             \
  if (!real) real = (type)dlvsym(RTLD_NEXT, name, version);     \
  if (!real) real = (type)dlsym(RTLD_NEXT, name)

#define WAIT_IN_SLICES(call)                       \
  for (;;) {                                       \
    int last;                                      \
    struct timespec end = slice_end(until, &last); \
    int result = (call);                           \
    if (result != ETIMEDOUT || last) return result; \
  }

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                           const struct timespec *until) {
  typedef int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  REAL("pthread_cond_timedwait", wait, "GLIBC_2.3.2");
  /* A condition that counts by another clock has an end far below the calendar's. */
  if (nanoseconds(until) < 1000000000LL * SECOND) return real(condition, mutex, until);
  WAIT_IN_SLICES(real(condition, mutex, &end));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
  typedef int (*wait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
  REAL("pthread_cond_clockwait", wait, "GLIBC_2.30");
  if (clock != CLOCK_REALTIME) return real(condition, mutex, clock, until);
  WAIT_IN_SLICES(real(condition, mutex, clock, &end));
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until) {
  typedef int (*wait)(pthread_mutex_t *, const struct timespec *);
  REAL("pthread_mutex_timedlock", wait, "GLIBC_2.2.5");
  WAIT_IN_SLICES(real(mutex, &end));
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  typedef int (*wait)(sem_t *, const struct timespec *);
  REAL("sem_timedwait", wait, "GLIBC_2.2.5");
  for (;;) {
    int last;
    struct timespec end = slice_end(until, &last);
    int result = real(semaphore, &end);
    if (result == 0 || errno != ETIMEDOUT || last) return result;
  }
}
