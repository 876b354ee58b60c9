/* Preloaded into a program: writing below quota/ fails with EDQUOT after LIMIT bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#define LIMIT 40000
static long used;
static int counted(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, "/quota/") != 0;
}
static int over(int fd, long size) {
  if (!counted(fd)) return 0;
  if (used + size <= LIMIT) { used += size; return 0; }
  errno = EDQUOT;
  return 1;
}
ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  return over(fd, size) ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
  static ssize_t (*real)(int, const struct iovec *, int);
  if (!real) real = dlsym(RTLD_NEXT, "writev");
  long size = 0;
  for (int i = 0; i < n; i++) size += v[i].iov_len;
  return over(fd, size) ? -1 : real(fd, v, n);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
  static size_t (*real)(const void *, size_t, size_t, FILE *);
  if (!real) real = dlsym(RTLD_NEXT, "fwrite");
  return over(fileno(file), size * n) ? 0 : real(data, size, n, file);
}
size_t fwrite_unlocked(const void *data, size_t size, size_t n, FILE *file) {
  return fwrite(data, size, n, file);
}
ssize_t copy_file_range(int in, off_t *a, int out, off_t *b, size_t size, unsigned flags) {
  errno = EXDEV;
  return -1;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  errno = EINVAL;
  return -1;
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t size) {
  errno = EINVAL;
  return -1;
}
int mkdir(const char *path, mode_t mode) {
  static int (*real)(const char *, mode_t);
  if (!real) real = dlsym(RTLD_NEXT, "mkdir");
  if (strstr(path, "quota/full")) { errno = EDQUOT; return -1; }
  return real(path, mode);
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
  if (over(fd, size)) return -1;
  errno = EOPNOTSUPP;
  return -1;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return over(fd, size) ? EDQUOT : 0; }
int posix_fallocate64(int fd, off_t offset, off_t size) { return over(fd, size) ? EDQUOT : 0; }
