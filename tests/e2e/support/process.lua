-- Child processes: started with their output in pipes, stopped and waited for with a deadline.
local ffi = require "ffi"
local bit = require "bit"
local lfs = require "lfs"
local sys = require "tests.e2e.support.sys"

local C = ffi.C
local process = {}

local O_NONBLOCK, O_CLOEXEC = 0x800, 0x80000
local SYS_PIDFD_OPEN, F_SETPIPE_SZ = 434, 1031
local PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, RLIMIT_NOFILE, RLIMIT_AS = 1, 36, 7, 9
local WNOHANG = 1

process.signals = { HUP = 1, INT = 2, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, CONT = 18, STOP = 19 }

-- A process that another has started becomes our child when that has ended, and tells us how it ends.
C.prctl(PR_SET_CHILD_SUBREAPER, ffi.cast("unsigned long", 1))

local Process = {}
process.class = Process
Process.__index = Process

local function make_pipe()
  local fds = ffi.new "int[2]"
  if C.pipe2(fds, O_CLOEXEC) ~= 0 then sys.fail "pipe2" end
  C.fcntl(fds[0], 4, ffi.cast("int", O_NONBLOCK))
  C.fcntl(fds[1], F_SETPIPE_SZ, ffi.cast("int", 1048576))
  return fds[0], fds[1]
end

local chunk = ffi.new "char[65536]"

-- Takes what the pipe holds into self[name]; closes it at its end.
local function drain(self, name)
  local fd = self.pipes[name]
  while fd do
    local n = tonumber(C.read(fd, chunk, 65536))
    if n <= 0 then
      if n == 0 then
        sys.unwatch(fd)
        C.close(fd)
        self.pipes[name] = nil
      end
      return
    end
    self[name] = self[name] .. ffi.string(chunk, n)
  end
end

-- In the child: never returns.
local function become(argv, options, input, out, err)
  C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", process.signals.KILL))
  if options.descriptors then
    local limit = ffi.new("struct rlimit", options.descriptors, options.descriptors)
    C.setrlimit(RLIMIT_NOFILE, limit)
  end
  for name, value in pairs(options.env or {}) do C.setenv(name, value, 1) end
  C.dup2(input or C.open("/dev/null", 0), 0)
  C.dup2(out, 1)
  C.dup2(err, 2)
  C.execvp(argv[0], ffi.cast("char *const *", argv))
  C._exit(127)
end

local function open_pidfd(pid)
  local fd = tonumber(C.syscall(SYS_PIDFD_OPEN, ffi.cast("long", pid), ffi.cast("long", 0)))
  if fd < 0 then sys.fail "pidfd_open" end
  return fd
end

-- Starts `argv`. Options: env, descriptors (RLIMIT_NOFILE, soft and hard), stderr (a path instead of the pipe), input
-- (true: what write() gives it; otherwise it has none).
function process.start(argv, options)
  options = options or {}
  local self = setmetatable({ name = argv[1], out = "", err = "", pipes = {} }, Process)
  local args = ffi.new("const char *[?]", #argv + 1)
  for i, word in ipairs(argv) do args[i - 1] = word end
  local out_r, out_w = make_pipe()
  local err_r, err_w = make_pipe()
  local in_r, in_w
  if options.input then
    in_r, in_w = make_pipe()
    C.fcntl(in_r, 4, ffi.cast("int", 0)) -- programs expect to wait for it
  end
  local to = err_w
  if options.stderr then
    to = C.open(options.stderr, bit.bor(1, O_CLOEXEC))
    if to < 0 then sys.fail(options.stderr) end
  end
  self.pid = C.fork()
  if self.pid == 0 then become(args, options, in_r, out_w, to) end
  if self.pid < 0 then sys.fail "fork" end
  C.close(out_w)
  C.close(err_w)
  if to ~= err_w then C.close(to) end
  if in_r then C.close(in_r) end
  self.input = in_w
  self.pipes.out, self.pipes.err = out_r, err_r
  sys.watch(out_r, function() drain(self, "out") end)
  sys.watch(err_r, function() drain(self, "err") end)
  self.pidfd = open_pidfd(self.pid)
  return self
end

-- The process `pid`, which this one has started, and which writes to the same pipes.
function Process:succeeded_by(pid)
  local shared = { out = true, err = true, pipes = true }
  local root, class = self.root or self, self.class or getmetatable(self)
  local successor = { name = self.name, pid = pid, pidfd = open_pidfd(pid), root = root, class = class }
  self.replaced = true
  return setmetatable(successor, { __index = function(_, key)
    if shared[key] then return root[key] end
    return class[key]
  end })
end

-- Gives it `text` to read; short ones, which fit into the pipe.
function Process:write(text)
  if C.write(self.input, text, #text) ~= #text then sys.fail "write" end
end

-- Nothing more to read for it.
function Process:end_input()
  if self.input then C.close(self.input) end
  self.input = nil
end

-- Closes our end of one of its pipes: its reader is gone.
function Process:close_pipe(name)
  sys.unwatch(self.pipes[name])
  C.close(self.pipes[name])
  self.pipes[name] = nil
end

function Process:drain()
  drain(self.root or self, "out")
  drain(self.root or self, "err")
end

function Process:signal(name)
  assert(self.pid, "it has ended")
  C.kill(self.pid, process.signals[name])
end

-- Stops all its threads, so that what happens until thaw() comes to it at once.
function Process:freeze()
  self:signal "STOP"
  local frozen = sys.wait_until(function()
    for task in lfs.dir(("/proc/%d/task"):format(self.pid)) do
      local stat = task:find "^%d" and sys.read_file(("/proc/%d/task/%s/stat"):format(self.pid, task))
      if stat and not stat:find "%) T " then return false end
    end
    return true
  end)
  assert(frozen, "it does not stop")
end

function Process:thaw()
  self:signal "CONT"
end

-- Waits for its end. Returns the exit status (128 + n after signal n), or nil when it still runs.
function Process:wait(seconds)
  if self.status then return self.status end
  if sys.poll({ { fd = self.pidfd, events = sys.POLLIN } }, sys.now() + (seconds or sys.PATIENCE)) == 0 then
    return nil
  end
  local box = ffi.new "int[1]"
  -- While its parent lives it is not our child.
  if not sys.wait_until(function() return C.waitpid(self.pid, box, WNOHANG) == self.pid end) then return nil end
  local signum = bit.band(box[0], 127)
  self.status = signum ~= 0 and 128 + signum or bit.band(bit.rshift(box[0], 8), 255)
  self:drain()
  if not self.replaced then
    for name in pairs(self.pipes) do self:close_pipe(name) end
  end
  self:end_input()
  C.close(self.pidfd)
  self.pid = nil
  return self.status
end

-- Asks it to end, so that it can end its own children; without ceremony when it does not.
function Process:terminate()
  if self.status then return end
  self:signal "TERM"
  if not self:wait(5) then self:kill() end
end

-- Ends it without ceremony.
function Process:kill()
  if self.status then return end
  self:signal "KILL"
  self:wait()
end

-- Waits for a Lua pattern in its output `name` ("err" or "out"), from byte `from` on. Returns the captures, or nil
-- when it did not come in time.
function Process:wait_for(name, pattern, from, seconds)
  local captures
  local found = sys.wait_until(function()
    captures = { self[name]:match(pattern, from or 1) }
    return captures[1] ~= nil or self.status ~= nil or self.pipes[name] == nil
  end, sys.now() + (seconds or sys.PATIENCE))
  if found then return unpack(captures) end
end

-- ---- what /proc says ----

-- A field of /proc/PID/status in kB.
function Process:memory_kb(field)
  local text = sys.read_file(("/proc/%d/status"):format(self.pid))
  return tonumber(text:match((field or "VmRSS") .. ":%s*(%d+) kB"))
end

-- CPU seconds used so far.
function Process:cpu()
  local text = sys.read_file(("/proc/%d/stat"):format(self.pid))
  local fields = {}
  for word in text:match "%)%s+(.*)":gmatch "%S+" do fields[#fields + 1] = word end
  return (tonumber(fields[12]) + tonumber(fields[13])) / tonumber(C.sysconf(2))
end

-- How many descriptors it has open.
function Process:descriptors()
  local n = 0
  for name in lfs.dir(("/proc/%d/fd"):format(self.pid)) do n = n + (name:find "^%d" and 1 or 0) end
  return n
end

-- Leaves it room for `more` descriptors than it has, while it runs. The limit is on numbers, and there may be gaps.
function Process:limit_descriptors(more)
  local n = -1
  repeat
    n = n + 1
    if not lfs.symlinkattributes(("/proc/%d/fd/%d"):format(self.pid, n)) then more = more - 1 end
  until more < 0
  local limit = ffi.new "struct rlimit"
  C.prlimit64(self.pid, RLIMIT_NOFILE, nil, limit)
  limit.rlim_cur = n
  if C.prlimit64(self.pid, RLIMIT_NOFILE, limit, nil) ~= 0 then sys.fail "prlimit" end
end

-- Sets the limit of its address space while it runs. Not for sanitizers: they need all there is.
function Process:limit_memory(bytes)
  local limit = ffi.new("struct rlimit", bytes, bytes)
  if C.prlimit64(self.pid, RLIMIT_AS, limit, nil) ~= 0 then sys.fail "prlimit" end
end

-- "address", "thread" or nil: the sanitizer it was built with.
function Process:sanitizer()
  local maps = sys.read_file(("/proc/%d/maps"):format(self.pid)) or ""
  return maps:find "libasan" and "address" or maps:find "libtsan" and "thread" or nil
end

return process
