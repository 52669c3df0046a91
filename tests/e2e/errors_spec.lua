-- Bad input and bad places: a message that says what, where and what would be right, the right exit status, and nothing
-- half-done.
local e2e = require "tests.e2e.support.case"
local case, sys = e2e.case, e2e.sys

-- Runs penstock, which must refuse. `text` is plain.
local function expect_refusal(t, args, status, text, options)
  local got, err, out = t:run(args, options)
  assert.equal(status, got, err)
  assert.is_truthy(err:find(text, 1, true), ("%q is not in: %s"):format(text, err))
  assert.equal("", out)
end

-- A case in which penstock logs why it refuses.
local function refusal(name, run)
  case(name, function(t)
    t:allow_error "."
    run(t)
  end)
end

describe("wrong command lines (status 2):", function()
  local lines = {
    { "an unknown option gets the nearest one", { "--max-con", "3", "0", "h:1" }, "did you mean --max-conns?" },
    { "an unknown option that is like none", { "--xyzzy", "0", "h:1" }, "unknown option --xyzzy" },
    { "a number that is none", { "--max-conns", "many", "0", "h:1" }, '--max-conns: "many" is not a whole number' },
    { "a time that is none", { "--idle-timeout", "5q", "0", "h:1" }, "write 30, 500ms, 2m or 1h" },
    { "a size that is none", { "--rate-up", "lots", "0", "h:1" }, '--rate-up: "lots" is not a size' },
    { "a word that is none of its words", { "--mode", "fast", "0", "h:1" }, "write auto, copy or splice" },
    { "an option without its value", { "0", "h:1", "--idle-timeout" }, "--idle-timeout needs a value" },
    { "a LISTEN without TARGET", { "8080" }, 'LISTEN "8080" has no TARGET' },
    { "a policy as operand", { "guard.lua", "0", "h:1" }, "write -p guard.lua" },
    { "a port out of range", { "99999", "h:1" }, '"99999" is not a port' },
    { "a TARGET without port", { "0", "host" }, '"host" has no port: write host:5432' },
    { "an IPv6 address without brackets", { "0", "::1:80" }, "write [::1]:80" },
    { "a mistyped IPv4 address", { "0", "256.1.1.1:80" }, '"256.1.1.1" is not an IP address' },
    { "a host name that is none", { "0", "ho st:80" }, "is not a host name" },
    { "a name to listen on", { "example.test:80", "h:1" }, "listen on an address" },
    { "ranges of different length", { "9000-9002", "h:1-2" }, "write ranges of the same length" },
    { "the same address twice", { "8080", "h:1", "127.0.0.1:8080", "h:2" }, "is given twice" },
    { "TARGET - without a policy", { "0", "-" }, "add -p POLICY.lua" },
    { "a DNS server that is no address", { "--resolver", "dns.test", "0", "h:1" }, "is not a list of IP addresses" },
    { "a command that is none", { "sokcs", "0" }, "did you mean penstock socks?" },
    { "a proxy that may go nowhere", { "socks", "0" }, "penstock socks needs the destinations that clients may reach" },
    { "a proxy without LISTEN", { "connect", "--allow", "any" }, "penstock connect takes one LISTEN" },
    { "a proxy with a TARGET", { "socks", "--allow", "any", "0", "h:1" }, "several stand in it with commas" },
    { "a proxy with a policy", { "socks", "--allow", "any", "-p", "x.lua", "0" }, "to put x.lua beside it" },
    { "a proxy behind proxies", { "socks", "--allow", "any", "--via", "http://h", "0" }, "takes no --via" },
    { "a proxy's option without one", { "--allow", "any", "0", "h:1" }, "--allow belongs to penstock socks" },
    { "a rule without port", { "socks", "--allow", "a.test", "0" }, '--allow: "a.test" has no port: write "a.test:4' },
    { "any beside other rules", { "socks", "--allow", "any", "--allow", "a:1", "0" }, "--allow: any stands alone" },
    { "a missing file of users", { "socks", "--allow", "any", "--auth", "/none", "0" }, "--auth: cannot read /none" },
    { "a UNIX path that is too long", { "unix:/" .. ("x"):rep(200), "h:1" }, "too long" },
  }
  for _, line in ipairs(lines) do
    refusal(line[1], function(t) expect_refusal(t, line[2], 2, line[3]) end)
  end

  refusal("no argument at all shows the usage", function(t) expect_refusal(t, {}, 2, "usage: penstock") end)
end)

describe("--help and --version:", function()
  refusal("they are printed on standard output, with status 0", function(t)
    local status, err, out = t:run { "--help" }
    assert.same({ 0, "" }, { status, err })
    assert.matches("%-%-max%-conns N", out)
    status, err, out = t:run { "--version" }
    assert.same({ 0, "" }, { status, err })
    assert.matches("^penstock %d+%.%d+%.%d+\n", out)
  end)
end)

describe("wrong policies (status 2):", function()
  local function expect_policy_error(name, text, ...)
    local wants = { ... }
    refusal(name, function(t)
      local path = t:file("bad.lua", text)
      for _, want in ipairs(wants) do
        expect_refusal(t, { "-p", path, "127.0.0.1:0", "127.0.0.1:1" }, 2, (want:gsub("PATH", path)))
      end
    end)
  end

  expect_policy_error("one that does not parse is named with its line", "return {\n  accept = = 1\n}", "PATH:2:")
  expect_policy_error("one that raises is named with line and traceback",
    "local function f()\n  error 'boom'\nend\nf()", "PATH:2: boom", "stack traceback", "PATH:4:")
  expect_policy_error("one that returns no table", "return 5", "returned a number, but a policy is a table of hooks")
  expect_policy_error("one that returns nothing", "local x = 1", "returned nothing")
  expect_policy_error("an unknown hook gets the nearest one", "return { conect = function() end }",
    'unknown hook "conect", did you mean "connect"?')
  expect_policy_error("a hook that is no function", "return { accept = true }", 'the hook "accept" is a boolean')

  refusal("one that does not exist", function(t)
    expect_refusal(t, { "-p", "/nonexistent/guard.lua", "127.0.0.1:0", "127.0.0.1:1" }, 2,
      "/nonexistent/guard.lua: No such file")
  end)
end)

describe("failures at the start (status 1):", function()
  refusal("an address in use by another program is named, and nothing listens afterwards", function(t)
    local other = t:listen()
    local free = t:refusing()
    local address = free.address
    free:close()
    expect_refusal(t, { address, "127.0.0.1:1", other.address, "127.0.0.1:1" }, 1,
      ("cannot listen on %s: Address already in use"):format(other.address))
    local socket, why = t:try_connect(address)
    assert.is_nil(socket)
    assert.equal("ECONNREFUSED", why)
  end)

  case("an address in use by a penstock with several workers is not shared with a second one", function(t)
    local server = t:listen()
    local first = t:penstock { "--workers", "4", "127.0.0.1:0", server.address }
    t:expect_error "Address already in use"
    for _, workers in ipairs { "1", "4" } do
      local second = t:start { "--workers", workers, first.address, server.address }
      second:expect_exit(1)
      assert.matches("cannot listen on .*Address already in use", second.err)
    end
    t:expect_echo(first, server)
  end)

  case("an address that somebody else shares by SO_REUSEPORT counts as in use", function(t)
    local other = t:listen("127.0.0.1:0", { reuseport = true })
    t:expect_error "Address already in use"
    local p = t:start { "--workers", "4", other.address, "127.0.0.1:1" }
    p:expect_exit(1)
  end)

  refusal("a UNIX socket on which somebody listens is not taken away", function(t)
    local path = "unix:" .. t:folder() .. "/socket"
    local other = t:listen(path)
    expect_refusal(t, { path, "127.0.0.1:1" }, 1, "cannot listen on " .. path)
    t:connect(path)
    t:accept(other)
  end)

  refusal("a file in the place of a UNIX socket is not removed", function(t)
    local path = t:file("precious", "data")
    expect_refusal(t, { "unix:" .. path, "127.0.0.1:1" }, 1, "cannot listen on unix:" .. path)
    assert.equal("data", sys.read_file(path))
  end)

  refusal("an address that no interface has", function(t)
    expect_refusal(t, { "192.0.2.1:0", "127.0.0.1:1" }, 1, "no interface of this machine has that address")
  end)

  refusal("a UNIX socket in a folder that does not exist", function(t)
    expect_refusal(t, { "unix:/nonexistent/s", "127.0.0.1:1" }, 1,
      "cannot listen on unix:/nonexistent/s: No such file or directory")
  end)

  refusal("--max-conns that ulimit -n has no room for says what would be right", function(t)
    expect_refusal(t, { "--workers", "1", "--max-conns", "5000", "127.0.0.1:0", "127.0.0.1:1" }, 1,
      "ulimit -n is 1000: room for ", { descriptors = 1000 })
  end)

  refusal("an ulimit -n without room for a connection is refused", function(t)
    expect_refusal(t, { "--workers", "4", "127.0.0.1:0", "127.0.0.1:1" }, 1, "ulimit -n is 64: room for 0",
      { descriptors = 64 })
  end)

  refusal("a log that cannot be opened", function(t)
    for _, option in ipairs { "--log-file", "--access-log" } do
      expect_refusal(t, { option, "/nonexistent/log", "127.0.0.1:0", "127.0.0.1:1" }, 1,
        "cannot open the log /nonexistent/log: No such file")
    end
  end)

  refusal("a pid file that cannot be written", function(t)
    expect_refusal(t, { "--pid-file", "/nonexistent/pid", "127.0.0.1:0", "127.0.0.1:1" }, 1,
      "cannot write the pid file /nonexistent/pid")
  end)
end)

describe("the pid file:", function()
  case("it holds the process id while penstock runs and is gone afterwards", function(t)
    local path = t:folder() .. "/pid"
    local p = t:penstock { "--pid-file", path, "127.0.0.1:0", "127.0.0.1:1" }
    assert.equal(p.pid, tonumber(sys.read_file(path)))
    p:stop()
    assert.is_nil(sys.read_file(path))
  end)
end)
