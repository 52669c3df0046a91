-- System calls by FFI, and the one place that waits. Knows nothing of penstock.
local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
typedef int pid_t;
typedef long ssize_t;
struct pollfd { int fd; short events; short revents; };
struct timespec { long tv_sec; long tv_nsec; };
struct rlimit { unsigned long rlim_cur; unsigned long rlim_max; };
struct linger { int l_onoff; int l_linger; };
struct sockaddr_in { unsigned short family; uint16_t port; uint8_t addr[4]; uint8_t zero[8]; };
struct sockaddr_in6 { unsigned short family; uint16_t port; uint32_t flow; uint8_t addr[16]; uint32_t scope; };
struct sockaddr_un { unsigned short family; char path[108]; };

int poll(struct pollfd *fds, unsigned long n, int timeout);
int clock_gettime(int clock, struct timespec *ts);
char *strerror(int err);
long sysconf(int name);
long syscall(long number, ...);

int socket(int family, int type, int protocol);
int bind(int fd, const void *addr, unsigned len);
int listen(int fd, int backlog);
int connect(int fd, const void *addr, unsigned len);
int accept4(int fd, void *addr, unsigned *len, int flags);
int getsockname(int fd, void *addr, unsigned *len);
int getpeername(int fd, void *addr, unsigned *len);
int getsockopt(int fd, int level, int name, void *value, unsigned *len);
int setsockopt(int fd, int level, int name, const void *value, unsigned len);
ssize_t send(int fd, const void *buf, size_t n, int flags);
ssize_t recv(int fd, void *buf, size_t n, int flags);
int shutdown(int fd, int how);
int inet_pton(int family, const char *text, void *addr);
const char *inet_ntop(int family, const void *addr, char *text, unsigned cap);
uint16_t htons(uint16_t n);

ssize_t read(int fd, void *buf, size_t n);
ssize_t write(int fd, const void *buf, size_t n);
int close(int fd);
int open(const char *path, int flags, ...);
int pipe2(int fds[2], int flags);
int dup2(int from, int to);
int fcntl(int fd, int command, ...);
int unlink(const char *path);
int rename(const char *from, const char *to);
char *mkdtemp(char *template);
int memcmp(const void *a, const void *b, size_t n);

pid_t fork(void);
int execvp(const char *file, char *const argv[]);
void _exit(int status);
pid_t waitpid(pid_t pid, int *status, int options);
int kill(pid_t pid, int signum);
int prctl(int option, ...);
int setenv(const char *name, const char *value, int overwrite);
int setrlimit(int resource, const struct rlimit *limit);
int prlimit64(pid_t pid, int resource, const struct rlimit *limit, struct rlimit *old);
]]

local C = ffi.C
local sys = { C = C }

-- Generous: a sanitizer build on a busy machine is many times slower.
sys.PATIENCE = tonumber(os.getenv "E2E_PATIENCE") or 20

sys.POLLIN, sys.POLLPRI, sys.POLLOUT, sys.POLLERR, sys.POLLHUP = 1, 2, 4, 8, 16
sys.EINTR, sys.EBADF, sys.EAGAIN, sys.ECONNRESET, sys.EPIPE, sys.EINPROGRESS = 4, 9, 11, 104, 32, 115

local names = {
  [2] = "ENOENT", [11] = "EAGAIN", [32] = "EPIPE", [104] = "ECONNRESET", [110] = "ETIMEDOUT",
  [111] = "ECONNREFUSED", [113] = "EHOSTUNREACH", [115] = "EINPROGRESS",
}

function sys.errno_name(errno)
  return names[errno] or ffi.string(C.strerror(errno))
end

-- Raises what the last call failed with.
function sys.fail(what, level)
  error(("%s: %s"):format(what, sys.errno_name(ffi.errno())), (level or 1) + 1)
end

local ts = ffi.new "struct timespec"
-- Monotonic seconds.
function sys.now()
  C.clock_gettime(1, ts)
  return tonumber(ts.tv_sec) + tonumber(ts.tv_nsec) / 1e9
end

-- Descriptors that are read whenever the test waits for anything: the pipes of child processes.
local background = {}

function sys.watch(fd, on_readable)
  background[fd] = on_readable
end

function sys.unwatch(fd)
  background[fd] = nil
end

local capacity, fds = 0, nil

-- Polls `list`, an array of { fd =, events =, revents = }, until one of it is ready or `deadline` has passed.
-- Returns how many are ready.
function sys.poll(list, deadline)
  while true do
    local readers, n = {}, #list
    for fd in pairs(background) do readers[#readers + 1] = fd end
    if n + #readers > capacity then
      capacity = (n + #readers) * 2 + 16
      fds = ffi.new("struct pollfd[?]", capacity)
    end
    for i = 1, n do
      fds[i - 1].fd, fds[i - 1].events, fds[i - 1].revents = list[i].fd, list[i].events, 0
    end
    for i, fd in ipairs(readers) do
      fds[n + i - 1].fd, fds[n + i - 1].events, fds[n + i - 1].revents = fd, sys.POLLIN, 0
    end
    local left = math.max(0, math.ceil((deadline - sys.now()) * 1000))
    if C.poll(fds, n + #readers, left) < 0 and ffi.errno() ~= sys.EINTR then sys.fail "poll" end
    local ready = 0
    for i = 1, n do
      list[i].revents = fds[i - 1].revents
      if list[i].revents ~= 0 then ready = ready + 1 end
    end
    for i, fd in ipairs(readers) do
      if fds[n + i - 1].revents ~= 0 and background[fd] then background[fd]() end
    end
    if ready > 0 or sys.now() >= deadline then return ready end
  end
end

-- Waits until `done()` is true, woken by output of child processes and every 5 ms otherwise: for what has no
-- descriptor to poll, such as files in /proc. Returns what `done()` returned, or false after `deadline`.
function sys.wait_until(done, deadline)
  deadline = deadline or sys.now() + sys.PATIENCE
  while true do
    local result = done()
    if result then return result end
    if sys.now() >= deadline then return false end
    sys.poll({}, math.min(deadline, sys.now() + 0.005))
  end
end

-- Time as such: for promises that something does not happen meanwhile.
function sys.pass(seconds)
  sys.poll({}, sys.now() + seconds)
end

function sys.read_file(path)
  local file = io.open(path, "r")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

function sys.write_file(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

function sys.make_folder()
  local template = ffi.new("char[64]", "/tmp/penstock-e2e-XXXXXX")
  if C.mkdtemp(template) == nil then sys.fail "mkdtemp" end
  return ffi.string(template)
end

function sys.remove_folder(path)
  assert(path:find "^/tmp/penstock%-e2e%-%w+$")
  os.execute("rm -rf " .. path)
end

sys.bor, sys.band = bit.bor, bit.band

return sys
