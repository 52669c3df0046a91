-- The sandbox as it is seen from outside, and by a policy that may call the kernel.
local admin = require "tests.e2e.support.admin"
local support = require "tests.e2e.support.case"
local case, sys = support.case, support.sys

-- The values that a field of /proc/PID/status has among its threads.
local function of_threads(p, name)
  local found = {}
  for task in io.popen(("ls /proc/%d/task"):format(p.pid)):lines() do
    local value = sys.read_file(("/proc/%d/task/%s/status"):format(p.pid, task)):match("\n" .. name .. ":\t(%d+)")
    found[value] = true
  end
  return found
end

-- Answers with the errno of each call, made in a worker, and with what /bin/sh said.
local policy = [[
  local ffi = require "ffi"
  ffi.cdef "int unshare(int flags); int chroot(const char *path); int setns(int fd, int type); int setuid(unsigned id);"
  return { connect = function()
    local function errno(status) return status == 0 and 0 or ffi.errno() end
    local pipe = io.popen("unshare --user true 2>/dev/null || echo denied; echo ran")
    local said = pipe:read "*a":gsub("\n", " ")
    pipe:close()
    return require "penstock".reply(("unshare %d chroot %d setns %d setuid %d: %s"):format(errno(ffi.C.unshare(0)),
      errno(ffi.C.chroot "/"), errno(ffi.C.setns(-1, 0)), errno(ffi.C.setuid(tonumber(os.getenv "WHO"))), said))
  end }
]]

-- Becomes a program that may not call seccomp(2): as in a container whose own filter denies it.
local without_seccomp = [[
  local ffi = require "ffi"
  ffi.cdef [=[
    struct sock_filter { uint16_t code; uint8_t yes, no; uint32_t k; };
    struct sock_fprog { unsigned short n; struct sock_filter *filter; };
    int prctl(int option, ...);
    int execvp(const char *file, const char *const argv[]);
  ]=]
  local number = ({ x64 = 317, arm64 = 277 })[jit.arch]
  local LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
  local DENY, ALLOW = 0x50000 + 1, 0x7fff0000
  local code = ffi.new("struct sock_filter[4]",
    { { LOAD, 0, 0, 0 }, { JUMP_IF_EQUAL, 0, 1, number }, { RETURN, 0, 0, DENY }, { RETURN, 0, 0, ALLOW } })
  local one, none = ffi.cast("long", 1), ffi.cast("long", 0)
  assert(ffi.C.prctl(38, one, none, none, none) == 0) -- no_new_privs
  assert(ffi.C.prctl(22, ffi.cast("long", 2), ffi.new("struct sock_fprog", 4, code)) == 0)
  local argv = ffi.new("const char *[?]", #arg + 1)
  for i, word in ipairs(arg) do argv[i - 1] = word end
  ffi.C.execvp(arg[1], argv)
]]

local EPERM, EBADF = 1, 9
local uid = io.popen("id -u"):read "*l"

local function ask(t, ...)
  local p = t:penstock({ "--unsafe-lua", "-p", t:file("policy.lua", policy), ... }, { env = { WHO = uid } })
  return p, t:connect(p):read_all()
end

describe("the sandbox:", function()
  case("every thread is in it once penstock serves, without a way to more privileges", function(t)
    local server = t:listen()
    local p = t:penstock { "--workers", "3", "127.0.0.1:0", server.address }
    assert.same({ ["2"] = true }, of_threads(p, "Seccomp"))
    assert.same({ ["1"] = true }, of_threads(p, "Seccomp_filters"))
    assert.same({ ["1"] = true }, of_threads(p, "NoNewPrivs"))
  end)

  case("--no-sandbox goes without, and ps.options { sandbox = false } too", function(t)
    local file = t:file("penstock.lua", [[
      local ps = require "penstock"
      ps.options { sandbox = false }
      ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]])
    for _, args in ipairs { { "--no-sandbox", "127.0.0.1:0", "127.0.0.1:1" }, { "run", file } } do
      local p = t:penstock(args)
      assert.same({ ["0"] = true }, of_threads(p, "Seccomp"))
      assert.same({ ["0"] = true }, of_threads(p, "NoNewPrivs"))
    end
  end)

  case("what it denies fails with EPERM in workers and in programs that a policy starts", function(t)
    local _, text = ask(t, "127.0.0.1:0", "-")
    assert.matches(("^unshare %d chroot %d setns %d setuid %%d: denied ran $"):format(EPERM, EPERM, EPERM), text)
  end)

  case("without it the kernel decides", function(t)
    local _, text = ask(t, "--no-sandbox", "127.0.0.1:0", "-")
    assert.matches(("^unshare 0 chroot %%d setns %d setuid 0: "):format(EBADF), text)
  end)

  if uid == "0" then
    case("after --user there is no way back", function(t)
      local p, text = ask(t, "--user", "nobody", "127.0.0.1:0", "-")
      assert.matches(("setuid %d: "):format(EPERM), text)
      assert.same({ ["2"] = true }, of_threads(p, "Seccomp"))
    end)
  end

  case("a kernel that refuses the filter is warned of, and penstock serves", function(t)
    local server = t:listen()
    local p = t:penstock({ "127.0.0.1:0", server.address },
      { under = { "luajit", t:file("refuse.lua", without_seccomp) } })
    p:log "warn  no sandbox: the kernel refuses the filter of system calls: .+ %(%-%-no%-sandbox goes without%)"
    assert.same({ ["1"] = true }, of_threads(p, "Seccomp_filters"))
    t:expect_echo(p, server)
  end)

  case("a reload that would change it says that it takes a restart", function(t)
    local at = "unix:" .. t:folder() .. "/admin.sock"
    local function without()
      local _, config = admin.ask(t, at, "/v1/config")
      return config.process["no-sandbox"]
    end
    local text = 'local ps = require "penstock" ps.options { %s } ps.listen { bind = "127.0.0.1:0", to = "unix:/x" }'
    local p = t:penstock { "--admin", at, "run", t:file("penstock.lua", text:format "") }
    assert.is_false(without())
    t:file("penstock.lua", text:format "sandbox = false")
    p:signal "HUP"
    p:log "ps.options: sandbox has changed, which takes effect at the next start"
    p:log "version 2 is in force"
    assert.is_false(without())
    assert.same({ ["2"] = true }, of_threads(p, "Seccomp"))
  end)

  case("is not left by an upgrade to a configuration without it, which says so", function(t)
    local server = t:listen()
    local function write(options)
      return t:file("penstock.lua", ('local ps = require "penstock"\n%s\nps.listen { bind = "127.0.0.1:0", to = "%s" }')
        :format(options, server.address))
    end
    local p = t:penstock { "run", write "" }
    local from = #p.err + 1
    local q = t:upgrade(p)
    assert.is_nil(p.err:find("takes a restart", from))
    write "ps.options { sandbox = false }"
    local r = t:upgrade(q)
    r:log "sandbox = false (takes) a restart: the filter of the process before holds on"
    assert.same({ ["2"] = true }, of_threads(r, "Seccomp"))
    t:expect_echo(r, server)
  end)
end)
