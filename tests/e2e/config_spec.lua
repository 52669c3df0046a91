-- Configuration in Lua: what ps.listen{} and ps.options{} say is what is served, and mistakes are told where they are.
local e2e = require "tests.e2e.support.case"
local sockets = require "tests.e2e.support.sockets"
local case, sys = e2e.case, e2e.sys

local function config(t, text, ...)
  return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:format(...))
end

-- Runs a configuration that must be refused. Returns what it says.
local function refused(t, text, ...)
  local status, err = t:run { "run", config(t, text, ...) }
  assert.equal(2, status)
  return err
end

describe("penstock run:", function()
  case("a listener forwards to its target", function(t)
    local server = t:listen()
    local p = t:penstock { "run",
      config(t, 'ps.listen { name = "web", bind = "127.0.0.1:0", to = %q }', server.address) }
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:finish()
    p:expect_end { listener = "web", upstream = server.address }
  end)

  case("each listener has its own policy, target and limits", function(t)
    local one, two = t:listen(), t:listen()
    local p = t:penstock { "run", config(t, [[
      ps.listen { name = "one", bind = "127.0.0.1:0", to = %q, policy = { accept = function(c) c:tag("p", 1) end } }
      ps.listen { name = "two", bind = "127.0.0.1:0", to = %q, limits = { per_ip = 1 } }
    ]], one.address, two.address) }
    local client, upstream = t:connect(p.addresses[1]), t:accept(one)
    t:connect(p.addresses[1])
    t:accept(one)
    t:connect(p.addresses[2])
    t:accept(two)
    t:connect(p.addresses[2]):expect_reset()
    client:finish()
    upstream:finish()
    p:expect_end { listener = "one", p = "1" }
    p:log "two: max%-per%-ip (1) reached"
  end)

  case("a list of addresses and a range are one listener each, with the same policy", function(t)
    local server = t:listen()
    local path = t:folder() .. "/socket"
    local p = t:penstock { "run", config(t, 'ps.listen { bind = { "127.0.0.1:0", "unix:%s" }, to = %q }', path,
      server.address) }
    assert.same("unix:" .. path, p.addresses[2])
    for _, address in ipairs(p.addresses) do
      local client, upstream = t:connect(address), t:accept(server)
      client:send "x"
      upstream:expect "x"
    end
  end)

  case("to may be a list, tried in order, a function, and a pool", function(t)
    local server, dead = t:listen(), t:refusing()
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = { %q, %q } }
      ps.listen { bind = "127.0.0.1:0", to = function(conn) conn:tag("by", "function") return %q end }
      ps.listen { bind = "127.0.0.1:0", to = { pick = function(pool, key) assert(key == "127.0.0.1") return %q end } }
    ]], dead.address, server.address, server.address, server.address) }
    for _, address in ipairs(p.addresses) do
      local client, upstream = t:connect(address), t:accept(server)
      client:send "x"
      upstream:expect "x"
    end
  end)

  case("the connect hooks of the policy come before a function in to", function(t)
    local server = t:listen()
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = function() error "never" end,
        policy = { connect = function() return %q end } }
    ]], server.address) }
    t:expect_echo(p, server)
  end)

  case("policies in a list: the first decision counts, every close hook runs, bytes pass all stages", function(t)
    local server = t:listen()
    local p = t:penstock { "run", config(t, [[
      local function upper(conn, dir, chunk) if dir == "up" then return chunk:upper() end end
      ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:1", policy = {
        { connect = function() return %q end, data = upper, close = function(c) c:tag("a", 1) end },
        { { connect = function() error "never" end,
            filter = { up = function(conn, rd, wr) for line, eol in rd:lines() do wr:write("<", line, ">", eol) end end,
              down = function(conn, rd, wr) for line, eol in rd:lines() do wr:write("[", line, "]", eol) end end } },
          { close = function(c) c:tag("b", 2) end } },
        { data = function(conn, dir, chunk) if dir == "up" then return ps.PASS end end },
      } }
    ]], server.address) }
    local client, upstream = t:pair(p, server)
    client:send("hello\n")
    upstream:expect "<HELLO>\n"
    upstream:send("Reply\n")
    client:expect "[Reply]\n"
    client:finish()
    upstream:finish()
    p:expect_end { a = "1", b = "2", reason = "eof" }
  end)

  case("an error in one close hook is logged with its place, and the others run", function(t)
    local server = t:listen()
    t:expect_error "script error in the close hook: .*boom"
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { { close = function() error "boom" end },
        { close = function(c) c:tag("after", true) end } } }
    ]], server.address) }
    local client, upstream = t:pair(p, server)
    client:finish()
    upstream:finish()
    p:expect_end { after = "true" }
    p:log "penstock.lua:2: (boom)"
  end)

  case("on_error = \"pass\" relays on from the first unread byte where a filter fails", function(t)
    local server = t:listen()
    t:expect_error "script error in the up filter"
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, on_error = "pass", policy = { filter = {
        up = function(conn, rd) rd:exactly(2) error "boom" end } } }
    ]], server.address) }
    local client, upstream = t:pair(p, server)
    client:send "ab and more"
    upstream:expect " and more"
    client:finish()
    upstream:finish()
    p:expect_end { reason = "eof" }
  end)

  case("times and limits of a listener hold, and the command line's are the default of the others", function(t)
    local server = t:listen()
    local p = t:penstock { "--idle-timeout", "150ms", "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, timeouts = { idle = 0, life = 0.2 } }
      ps.listen { bind = "127.0.0.1:0", to = %q }
    ]], server.address, server.address) }
    t:connect(p.addresses[1])
    p:expect_end { reason = "timeout", detail = "life" }
    t:connect(p.addresses[2])
    p:expect_end({ reason = "timeout", detail = "idle" }, 2)
  end)

  -- The timer that the kernel runs for the connection from port `from` to port `to`: "02" is keep-alive's.
  local function timer_of(from, to)
    local pattern = (":%04X %%x+:%04X 01 %%x+:%%x+ (%%d%%d):"):format(from, to)
    for line in io.lines "/proc/net/tcp" do
      local timer = line:match(pattern)
      if timer then return timer end
    end
  end

  case("socket options of a listener hold, and the others have none of them", function(t)
    local server = t:listen()
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, bind_source = "127.0.0.2", keepalive = "30s", nodelay = false,
        rcvbuf = "50K", sndbuf = "40K", backlog = 7, mode = "copy",
        policy = { close = function(conn) conn:tag("mode", conn.mode.up) end } }
      ps.listen { bind = "127.0.0.1:0", to = %q }
    ]], server.address, server.address) }
    local want = { { "^127%.0%.0%.2:", "02" }, { "^127%.0%.0%.1:", "00" } }
    local most = tonumber(sys.read_file "/proc/sys/net/core/somaxconn")
    local function expect_set(first, from, to)
      local got = sockets.find(p, from, to)
      assert.same({ first, first, not first }, { got.rcvbuf == 51200, got.sndbuf == 40960, got.nodelay })
      return got
    end
    for i, address in ipairs(p.addresses) do
      local client, upstream = t:connect(address), t:accept(server)
      client:send "x"
      upstream:expect "x"
      assert.matches(want[i][1], upstream.from)
      expect_set(i == 1, address, client.own)
      expect_set(i == 1, upstream.from, server.address)
      assert.equal(i == 1 and 7 or math.min(4096, most), expect_set(i == 1, address).backlog)
      local port = tonumber(upstream.from:match ":(%d+)$")
      assert.is_true(sys.wait_until(function() return timer_of(port, server.port) == want[i][2] end))
      client:finish()
      upstream:finish()
      p:access(i)
    end
    assert.equal("copy", p:access(1).mode)
  end)

  case("a client that says nothing is ended after first_byte", function(t)
    local server = t:listen()
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q, timeouts = { first_byte = "100ms" } }]], server.address) }
    t:connect(p)
    p:expect_end { reason = "timeout", detail = "first_byte" }
  end)

  case("a listening descriptor that was inherited is served", function(t)
    local server, own = t:listen(), t:listen()
    own:inherit()
    local p = t:penstock { "run", config(t, 'ps.listen { bind = "fd:%d", to = %q }', own.fd, server.address) }
    assert.equal(own.address, p.address)
    t:expect_echo(p, server)
  end)

  case("what is not a listening descriptor is refused by its name", function(t)
    local p = t:start { "run", config(t, 'ps.listen { bind = "fd:77", to = "h:1" }') }
    t:expect_error "cannot listen on fd:77"
    p:expect_exit(1)
    assert.matches("cannot listen on fd:77: .*fd:N is a listening socket that was open at start", p.err)
  end)
end)

describe("ps.options:", function()
  case("sets what the process's options set", function(t)
    local p = t:start { "run", config(t, [[
      ps.options { workers = 2, max_conns = 123, log = "debug", drain_timeout = "1s" }
      ps.listen { bind = "127.0.0.1:0", to = "h:1" }
      ps.log.debug("is shown")
    ]]) }
    p:log "2 workers, room for (123) connections"
  end)

  case("the command line wins", function(t)
    local p = t:start { "--workers", "1", "run", config(t, [[
      ps.options { workers = 2 }
      ps.listen { bind = "127.0.0.1:0", to = "h:1" }
    ]]) }
    p:log "1 worker, room for (%d+) connections"
  end)

  case("the log may go to a file that the configuration names", function(t)
    local path = t:folder() .. "/log"
    t:penstock_with_log(path, { "run", config(t, [[
      ps.options { log_file = %q }
      ps.listen { bind = "127.0.0.1:0", to = "h:1" }
    ]], path) })
  end)

  case("jit can be switched on", function(t)
    local server = t:listen()
    local p = t:penstock { "run", config(t, [[
      ps.options { jit = true }
      ps.listen { bind = "127.0.0.1:0", to = %q, policy = { accept = function(conn)
        local n = 0 for i = 1, 3e8 do n = n + i end conn:tag("n", n > 0) end } }
    ]], server.address) }
    t:expect_echo(p, server) -- it would be interrupted otherwise
  end)
end)

describe("a -p file:", function()
  case("needs no LISTEN when it calls ps.listen", function(t)
    local server = t:listen()
    local p = t:penstock { "-p", config(t, 'ps.listen { bind = "127.0.0.1:0", to = %q }', server.address) }
    t:expect_echo(p, server)
  end)

  case("its policy is for the command line's listeners, not for those of ps.listen", function(t)
    local server = t:listen()
    local p = t:penstock { "-p", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = %q }
      return { accept = function(conn) conn:tag("main", true) end }
    ]], server.address), "127.0.0.1:0", server.address }
    for i, address in ipairs(p.addresses) do
      local client = t:connect(address)
      local upstream = t:accept(server)
      client:finish()
      upstream:finish()
      p:access(i)
    end
    p:expect_end({ main = "true" }, 1)
    assert.is_nil(p:access(2).main)
  end)

  case("without any listener it is refused", function(t)
    t:expect_error ""
    local status, err = t:run { "-p", config(t, "return {}") }
    assert.equal(2, status)
    assert.matches("needs a LISTEN and a TARGET", err)
  end)

  case("a policy that nothing would use is refused", function(t)
    t:expect_error ""
    local status, err = t:run { "-p", config(t, [[
      ps.listen { bind = "127.0.0.1:0", to = "h:1" }
      return { accept = function() end }
    ]]) }
    assert.equal(2, status)
    assert.matches("returned a policy, but the command line has no LISTEN", err)
  end)

  case("serve beside a TARGET is refused", function(t)
    t:expect_error ""
    local status, err = t:run { "-p", config(t, "return { serve = function() end }"), "127.0.0.1:0", "h:1" }
    assert.equal(2, status)
    assert.matches("serve answers the client itself, so there must be no destination", err)
  end)
end)

describe("wrong configurations (status 2):", function()
  local cases = {
    { "an unknown option", 'ps.listen { bind = ":1", limts = {} }', 'has no option "limts", did you mean "limits"' },
    { "an unknown limit", 'ps.listen { bind = ":1", limits = { perip = 1 } }',
      'limits has no option "perip", did you mean "per_ip"' },
    { "a wrong time", 'ps.listen { bind = ":1", timeouts = { idle = "5 s" } }',
      'timeouts.idle: "5 s" is not a time; write 30, 500ms' },
    { "a number out of range", 'ps.listen { bind = ":1", backlog = 0 }', 'backlog: "0" is out of range; write 1 to' },
    { "no bind", "ps.listen {}", 'bind is missing; write bind = ":6379"' },
    { "a wrong address", 'ps.listen { bind = "db:1" }', 'ps.listen: bind: "db" is a name' },
    { "a wrong target", 'ps.listen { bind = ":1", to = "x" }', 'ps.listen: to: "x" has no port' },
    { "a range and a target of another length", 'ps.listen { bind = ":1-3", to = "h:1-2" }',
      "has 3 ports and ps.listen: to" },
    { "an address twice", 'ps.listen { bind = ":1" } ps.listen { bind = "0.0.0.0:1" }',
      "the address 0.0.0.0:1 is given twice" },
    { "a name twice", 'ps.listen { name = "a", bind = ":1" } ps.listen { name = "a", bind = ":2" }',
      'two listeners are named "a"' },
    { "a wrong policy", 'ps.listen { bind = ":1", policy = { conect = print } }',
      'unknown hook "conect", did you mean "connect"' },
    { "a listener's option in ps.options", "ps.options { idle_timeout = 1 }",
      "belongs to a listener: ps.listen{ timeouts = { idle = … } }" },
    { "an unknown process option", "ps.options { wrkers = 1 }", 'did you mean "workers"' },
    { "unsafe_lua from within", "ps.options { unsafe_lua = true }", "is for whoever starts penstock to grant" },
    { "a sandbox in words", "ps.options { sandbox = true }", "ps.options: sandbox is false, or left out" },
    { "no listener", "local x = ps.version", "has no listener: ps.listen{" },
    { "a policy instead", "return {}", "a configuration returns nothing" },
    { "listeners that differ between workers",
      'ps.listen { name = "n" .. ps.random(2 ^ 40), bind = "127.0.0.1:0" } ps.options { workers = 2 }',
      "configured something else for another worker" },
  }
  for _, c in ipairs(cases) do
    case(c[1], function(t)
      t:expect_error ""
      local err = refused(t, "%s", c[2])
      assert.is_truthy(err:find(c[3], 1, true), err)
    end)
  end

  case("the message names the line in the file", function(t)
    t:expect_error ""
    assert.matches('penstock.lua:3: ps.listen: limits.per_ip: "x" is not a whole number',
      refused(t, '\nps.listen { bind = ":1", limits = { per_ip = "x" } }'))
  end)

  case("ps.listen in a hook is an error of that hook", function(t)
    t:expect_error "call it while the file loads"
    local p = t:penstock { "run", config(t, [[
      ps.listen { bind = "127.0.0.1:0", policy = { accept = function() ps.listen { bind = ":1" } end } }
    ]]) }
    t:connect(p):expect_reset()
    p:expect_end { reason = "script" }
  end)
end)
