-- Policies in Lua: what each hook may decide, that it may wait, and that its failure costs one connection.
local e2e = require "tests.e2e.support.case"
local case, case_in_modes, bulk, sys = e2e.case, e2e.case_in_modes, e2e.bulk, e2e.sys

local KB, MB = 1024, 1024 * 1024

-- penstock with a policy of this text. `target` defaults to a listener, which is returned.
local function start(t, text, options)
  options = options or {}
  local server = t:listen()
  local args = { "-p", t:file("policy.lua", 'local ps = require "penstock"\n' .. text) }
  for _, word in ipairs(options.args or {}) do args[#args + 1] = word end
  args[#args + 1] = "127.0.0.1:0"
  args[#args + 1] = options.target or server.address
  return t:penstock(args), server
end

local function expect_nobody(server)
  assert.is_nil(server:try_accept(0), "the upstream was reached")
end

describe("accept hook:", function()
  case("false closes the client, and the upstream is not dialled", function(t)
    local p, server = start(t, "return { accept = function(conn) return false end }")
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "-", upstream = "-", connect_ms = "-" }
    expect_nobody(server)
  end)

  case("ps.deny with reset and a reason resets the client and logs the reason", function(t)
    local p, server = start(t, [[
      return { accept = function() return ps.deny { reset = true, reason = "no_entry" } end }]])
    t:connect(p):expect_reset()
    p:expect_end { reason = "denied", detail = "no_entry" }
    expect_nobody(server)
  end)

  case("it sees the client and counts", function(t)
    local p, server = start(t, [[
      return { accept = function(conn)
        conn.log.info("%s %d %d %d %s", conn.client.ip, conn.client.port, conn.id, conn.seq, conn.listener)
      end }]])
    for i = 1, 3 do
      local client = t:expect_echo(p, server)
      local port = client.own:match ":(%d+)$"
      local line = ("127.0.0.1 %s %d %d %s"):format(port, i, i, p.address)
      p:log((line:gsub("%p", "%%%0")))
    end
  end)
end)

describe("connect hook:", function()
  case("it names the destination where TARGET is -", function(t)
    local server = t:listen()
    local p = start(t, ("return { connect = function() return %q end }"):format(server.address), { target = "-" })
    t:expect_echo(p, server)
  end)

  case("its destination goes before TARGET", function(t)
    local other = t:listen()
    local p, server = start(t, ("return { connect = function() return %q end }"):format(other.address))
    t:expect_echo(p, other)
    expect_nobody(server)
  end)

  case("a list of destinations is tried in order", function(t)
    local server = t:listen()
    local p = start(t, ("return { connect = function() return { %q, %q } end }"):format(
      t:refusing().address, server.address), { target = "-" })
    t:expect_echo(p, server)
  end)

  case("a UNIX socket is a destination", function(t)
    local server = t:listen("unix:" .. t:folder() .. "/upstream")
    local p = start(t, ("return { connect = function() return %q end }"):format(server.address), { target = "-" })
    t:expect_echo(p, server)
  end)

  case("nothing means the configured target", function(t)
    local p, server = start(t, "return { connect = function() end }")
    t:expect_echo(p, server)
  end)

  case("nothing, where TARGET is -, denies the client and says so", function(t)
    local p = start(t, "return { connect = function() end }", { target = "-" })
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "no_destination" }
    p:log "warn .*(no destination)"
  end)

  case("deny closes the client with its reason", function(t)
    local p, server = start(t, 'return { connect = function() return ps.deny { reason = "closed_today" } end }')
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "closed_today" }
    expect_nobody(server)
  end)

  case("deny with hang keeps the client waiting first", function(t)
    local p = start(t, 'return { connect = function() return ps.deny { hang = 0.4, reset = true } end }')
    local before = sys.now()
    t:connect(p):expect_reset()
    assert.is_true(sys.now() - before >= 0.39, "it did not wait")
    p:expect_end { reason = "denied" }
  end)

  case("a client that is kept waiting and goes away ends at once", function(t)
    local p = start(t, 'return { connect = function() return ps.deny { hang = 3600 } end }')
    local client = t:connect(p)
    p.client = client
    sys.wait_until(function() return client:unsent() == 0 end)
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("a destination that makes no sense costs this connection and is explained", function(t)
    t:expect_error "script error in the connect hook"
    local p, server = start(t, 'return { connect = function(c) if c.seq == 1 then return "no port" end end }')
    t:connect(p):expect_reset()
    p:expect_end { reason = "script" }
    p:log "script error in the connect hook: .*(\"no port\")"
    t:expect_echo(p, server)
  end)
end)

describe("failed hook:", function()
  case("it is told what failed and chooses another destination", function(t)
    local server, dead = t:listen(), t:refusing()
    local p = start(t, ([[return { failed = function(conn, dest, err)
      conn.log.info("FAILED %%s %%s", dest, err)
      return %q
    end }]]):format(server.address), { target = dead.address })
    t:expect_echo(p, server)
    p:log("FAILED (" .. dead.address:gsub("%p", "%%%0") .. ") refused")
  end)

  case("nothing ends the client with the dial's own reason", function(t)
    local p = start(t, "return { failed = function() end }", { target = t:refusing().address })
    t:connect(p):expect_reset()
    p:expect_end { reason = "refused" }
  end)

  case("deny gives another reason", function(t)
    local p = start(t, 'return { failed = function() return ps.deny { reason = "all_down" } end }',
      { target = t:refusing().address })
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "all_down" }
  end)

  case("a hook that chooses for ever is stopped by a limit", function(t)
    local dead = t:refusing()
    local p = start(t, ("return { failed = function() return %q end }"):format(dead.address), { target = dead.address })
    t:connect(p):expect_reset()
    p:expect_end { reason = "limit", detail = "too_many_choices" }
  end)
end)

describe("connected hook:", function()
  case("it sees the upstream and may still deny", function(t)
    local p, server = start(t, [[return { connected = function(conn)
      conn:tag("up", conn.upstream.addr)
      if conn.seq == 2 then return ps.deny { reason = "second" } end
    end }]])
    local client, upstream = t:expect_echo(p, server)
    t:connect(p):expect_eof()
    local line = p:expect_end { reason = "denied", detail = "second", up = server.address }
    assert.is_not_nil(line)
    client:close()
    upstream:close()
    p:access(2)
  end)
end)

describe("data hook:", function()
  case("it rewrites, drops, and leaves unchanged, in each direction", function(t)
    local p, server = start(t, [[return { data = function(conn, dir, chunk)
      if chunk == "drop" then return "" end
      if chunk == "as is" then return nil end
      return "<" .. dir .. ":" .. chunk .. ">"
    end }]])
    local client, upstream = t:pair(p, server)
    client:send "a"
    upstream:expect "<up:a>"
    upstream:send "b"
    client:expect "<down:b>"
    client:send "drop"
    client:wait_delivered()
    assert.is_false(upstream:ready("r", 0.1))
    client:send "as is"
    upstream:expect "as is"
    client:finish()
    upstream:expect_eof()
    upstream:send "late"
    client:expect "<down:late>"
  end)

  for mode, name in pairs { auto = "copy", copy = "copy", splice = "splice" } do
    case("ps.PASS gives a direction back to the relay in C (--mode " .. mode .. ")", function(t)
      local p, server = start(t, [[return { data = function(conn, dir, chunk)
        if dir == "down" then return ps.PASS end
        return conn.mode.up .. " " .. conn.mode.down
      end }]], { args = { "--mode", mode } })
      local client, upstream = t:pair(p, server)
      client:send "?"
      upstream:expect "lua lua"
      upstream:send "unchanged"
      client:expect "unchanged"
      client:send "?"
      upstream:expect("lua " .. name)
      bulk.run { { from = upstream, to = client, bytes = 3 * MB, finish = true } }
    end)
  end

  case_in_modes("random chunks through hooks that wait now and then arrive byte for byte", function(t, mode)
    local p, server = start(t, [[return { data = function(conn, dir, chunk)
      local die = ps.random()
      if die < 0.02 then ps.sleep(0.001) end
      if die > 0.5 then return chunk end
    end }]], { args = { "--mode", mode, "--seed", "7" } })
    local client, upstream = t:pair(p, server)
    local random = bulk.random(7)
    local function size() return random(random(3) == 1 and 100 * KB or 300) end
    bulk.run {
      { from = client, to = upstream, bytes = 2 * MB, chunk = size, read = size, finish = true },
      { from = upstream, to = client, bytes = 2 * MB, chunk = size, read = size, finish = true },
    }
    p:expect_end { reason = "eof", up = 2 * MB, down = 2 * MB }
  end)

  case("more bytes than came arrive whole, before the end", function(t)
    local p, server = start(t, 'return { data = function(_, _, chunk) return (chunk:gsub(".", "%0%0")) end }')
    local client, upstream = t:pair(p, server)
    local text = ("penstock"):rep(20000)
    client:send(text):finish()
    local got, how = upstream:read_all()
    assert.equal("eof", how)
    assert.is_true(got == text:gsub(".", "%0%0"))
    upstream:close()
  end)

  case("PASS after some bytes, in the middle of a bulk transfer, loses none", function(t)
    local p, server = start(t, [[return { data = function(conn, dir, chunk)
      if conn.bytes_up > 1048576 then return ps.PASS end
    end }]])
    local client, upstream = t:pair(p, server)
    bulk.run { { from = client, to = upstream, bytes = 8 * MB, finish = true } }
  end)

  case("one that sleeps holds only its own direction", function(t)
    local p, server = start(t, 'return { data = function(_, dir) if dir == "up" then ps.sleep(3600) end end }')
    local client, upstream = t:pair(p, server)
    client:send "held"
    bulk.run { { from = upstream, to = client, bytes = 3 * MB } }
    bulk.fill(client, 70 * MB, 0.1)
    assert.is_true(p:memory_kb() < (p:sanitizer() and 200 * KB or 60 * KB))
    assert.equal(0, upstream.got)
    upstream:send "still open"
    client:expect "still open"
    upstream:reset()
    client:expect_reset()
  end)

  case("a reader that stops holds up what hooks produce, within bounds", function(t)
    local p, server = start(t, "return { data = function(_, _, chunk) return chunk .. chunk end }")
    local client = t:pair(p, server)
    bulk.fill(client, 70 * MB)
    assert.is_true(p:memory_kb() < (p:sanitizer() and 250 * KB or 80 * KB))
  end)

  case("conn:limit holds a direction down", function(t)
    local p, server = start(t, 'return { accept = function(conn) conn:limit { up = "100K" } end }')
    local before = sys.now()
    local client, upstream = t:pair(p, server)
    client:send(bulk.text(0, 60 * KB))
    upstream:expect(bulk.text(0, 60 * KB))
    assert.is_true(sys.now() - before > 0.48, "60 KB came too fast for 100 KB/s")
  end)
end)

describe("close hook:", function()
  case("it runs exactly once for each connection, however it ends, and knows why", function(t)
    local p, server = start(t, [[return {
      accept = function(conn) if conn.seq == 4 then return ps.deny { reason = "fourth" } end end,
      connect = function(conn) if conn.seq == 5 then return "unix:/nonexistent/penstock" end end,
      close = function(conn, info)
        conn:tag("late", "yes")
        conn.log.info("CLOSE %d %s %s %s up=%d down=%d dial=%s", conn.id, info.reason, info.side, info.detail,
          info.bytes_up, info.bytes_down, tostring(info.connect_time ~= nil))
        assert(info.duration >= 0)
      end,
    }]], { args = { "--idle-timeout", "400ms" } })
    local client, upstream = t:expect_echo(p, server) -- 1: eof
    client:finish()
    upstream:expect_eof()
    upstream:close()
    client:expect_eof()
    client, upstream = t:expect_echo(p, server) -- 2: reset
    upstream:reset()
    client:expect_reset()
    t:expect_echo(p, server) -- 3: timeout
    t:connect(p):expect_eof() -- 4: denied
    t:connect(p):expect_reset() -- 5: refused
    p:access(5)
    p:stop()
    local want = {
      "1 eof client  up=4 down=4 dial=true", "2 reset upstream  up=4 down=4 dial=true",
      "3 timeout - idle up=4 down=4 dial=true", "4 denied - fourth up=0 down=0 dial=false",
      "5 refused upstream  up=0 down=0 dial=false",
    }
    for _, line in ipairs(want) do
      local _, times = p.err:gsub("CLOSE " .. line:gsub("%p", "%%%0"), "")
      assert.equal(1, times, line .. "\n" .. p.err)
    end
    local _, times = p.err:gsub("CLOSE", "")
    assert.equal(5, times)
  end)

  case("its tags are in the access line", function(t)
    local p, server = start(t, 'return { close = function(conn) conn:tag("by", "close hook") end }')
    local client, upstream = t:expect_echo(p, server)
    client:close()
    upstream:close()
    p:expect_end { reason = "eof", by = "close hook" }
  end)

  case("it may wait, and a stop waits for it", function(t)
    local p, server = start(t, [[return { close = function(conn)
      ps.sleep(0.3)
      conn.log.info "WAITED"
    end }]])
    local client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    p:stop()
    assert.matches("WAITED", p.err)
  end)
end)

describe("waiting:", function()
  case("ps.sleep works in every hook", function(t)
    local server, dead = t:listen(), t:refusing()
    local p = start(t, ([[
      local function note(conn, hook) conn.log.info("SLEPT %%s", hook) end
      return {
        accept = function(conn) ps.sleep(0.02) note(conn, "accept") end,
        connect = function(conn) ps.sleep(0.02) note(conn, "connect") return %q end,
        failed = function(conn) ps.sleep(0.02) note(conn, "failed") return %q end,
        connected = function(conn) ps.sleep(0.02) note(conn, "connected") end,
        data = function(conn, dir) ps.sleep(0.02) note(conn, "data " .. dir) end,
        close = function(conn) ps.sleep(0.02) note(conn, "close") end,
      }]]):format(dead.address, server.address), { target = "-" })
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:expect_eof()
    upstream:finish()
    client:expect_eof()
    p:stop()
    local seen = {}
    for hook in p.err:gmatch "SLEPT ([^\n]+)" do seen[#seen + 1] = hook end
    assert.same({ "accept", "connect", "failed", "connected", "data up", "data down", "close" }, seen)
  end)

  case("what a client sends while a hook waits arrives afterwards", function(t)
    local p, server = start(t, "return { connect = function() ps.sleep(0.2) end }")
    local client = t:connect(p)
    client:send "early"
    client:finish()
    local upstream = t:accept(server)
    upstream:expect "early"
    upstream:expect_eof()
    upstream:send "answer"
    client:expect "answer"
  end)

  for _, hook in ipairs { "accept", "connect", "connected" } do
    case("a client that aborts while the " .. hook .. " hook waits is quiet, and the hook is cancelled", function(t)
      local p = start(t, ([[return {
        %s = function(conn)
          conn.log.info "WAITING"
          local ok, err = pcall(ps.sleep, 3600)
          conn.log.info("WOKEN %%s %%s", tostring(ok), tostring(err == ps.CANCELLED))
          error(err)
        end,
        close = function(conn, info) conn.log.info("CLOSE %%s", info.reason) end,
      }]]):format(hook))
      local client = t:connect(p)
      p:log "(WAITING)"
      client:reset()
      p:expect_end { reason = "reset", side = "client" }
      p:stop()
      local _, woken = p.err:gsub("WOKEN false true", "")
      local _, closed = p.err:gsub("CLOSE reset", "")
      assert.same({ 1, 1 }, { woken, closed })
    end)
  end

  case("a client that aborts while the data hook of the other direction waits ends the connection", function(t)
    local p, server = start(t, [[return { data = function(conn, dir)
      conn.log.info("WAITING %s", dir)
      ps.sleep(3600)
    end }]])
    local client, upstream = t:pair(p, server)
    upstream:send "x"
    p:log "WAITING (down)"
    client:reset()
    upstream:expect_reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("what a client sent before it aborted is delivered when its data hook has waited, then the reset", function(t)
    local p, server = start(t, [[return { data = function(conn, dir)
      conn.log.info("WAITING %s", dir)
      ps.sleep(0.3)
    end }]])
    local client, upstream = t:pair(p, server)
    client:send "x"
    p:log "WAITING (up)"
    client:reset()
    upstream:expect "x"
    upstream:expect_reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("an upstream that aborts while a hook waits ends the connection", function(t)
    local p, server = start(t, "return { data = function() ps.sleep(3600) end }")
    local client, upstream = t:pair(p, server)
    client:send "x"
    upstream:reset()
    client:expect_reset()
    p:expect_end { reason = "reset", side = "upstream" }
  end)

  case("waits inside a coroutine of the script work", function(t)
    local p, server = start(t, [[return { data = function(conn, dir, chunk)
      local out = {}
      for word in coroutine.wrap(function()
        for w in chunk:gmatch "%a+" do
          ps.sleep(0.01)
          coroutine.yield(w)
        end
      end) do out[#out + 1] = word end
      return table.concat(out, "-")
    end }]])
    local client, upstream = t:pair(p, server)
    client:send "a b c"
    upstream:expect "a-b-c"
  end)

  case("a thousand connections with sleeping hooks are all served", function(t)
    local p, server = start(t, [[return {
      connect = function() ps.sleep(0.1 + ps.random() / 10) end,
      data = function() ps.sleep(ps.random() / 50) end,
      close = function() ps.sleep(0.01) end,
    }]])
    local clients, upstreams = {}, {}
    for i = 1, 1000 do clients[i] = t:connect(p):send(("%04d"):format(i)) end
    for i = 1, 1000 do upstreams[i] = t:accept(server) end
    for i = 1, 1000 do upstreams[i]:send(upstreams[i]:read(4)):finish() end
    for i = 1, 1000 do
      clients[i]:expect(("%04d"):format(i))
      clients[i]:expect_eof()
      clients[i]:close()
    end
    p:stop()
    local _, ends = p.err:gsub("reason=eof", "")
    assert.equal(1000, ends)
  end)

  case("a stop that does not wait cancels what hooks wait for", function(t)
    local p = start(t, [[return {
      accept = function(conn) conn.log.info "WAITING" ps.sleep(3600) end,
      close = function() ps.sleep(3600) end,
    }]], { args = { "--drain-timeout", "0" } })
    local client = t:connect(p)
    p:log "(WAITING)"
    p:stop()
    client:expect_reset()
    p:expect_end { reason = "shutdown" }
  end)
end)

describe("conn.upstream:", function()
  case("it tells the destination as it was written and the address that was reached", function(t)
    local server = t:listen()
    local port = server.address:match ":(%d+)$"
    local p = start(t, ([[return {
      connect = function() return "localhost:%s" end,
      connected = function(conn) conn.log.info("UP %%s %%s", conn.upstream.name, conn.upstream.addr) end,
    }]]):format(port))
    t:expect_echo(p, server)
    assert.is_truthy(p:log(("(UP localhost:%s 127%%.0%%.0%%.1:%s)"):format(port, port)))
  end)
end)

describe("errors in hooks:", function()
  for _, hook in ipairs { "accept", "connect", "failed", "connected", "data", "close" } do
    case("one in the " .. hook .. " hook ends that connection only, and is logged with its traceback", function(t)
      t:expect_error(("script error in the %s hook: .*boom"):format(hook))
      local server = t:listen()
      local p = start(t, ([[
        local function explode() error "boom" end
        local policy = { connect = function(conn) return conn.seq == 1 and %q or %q end }
        local before = policy.%s
        policy.%s = function(conn, ...)
          if conn.seq == 1 then explode() end
          return before and before(conn, ...)
        end
        return policy]]):format(hook == "failed" and t:refusing().address or server.address, server.address, hook,
        hook), { target = "-" })
      local client = t:connect(p):offer "first"
      if hook == "close" then
        t:accept(server):expect("first"):close()
        client:finish()
        client:expect_eof()
        p:expect_end { reason = "eof" }
      else
        client:expect_reset()
        p:expect_end { reason = "script", detail = hook == "data" and "data" or "hook" }
      end
      if hook == "connected" or hook == "data" then t:accept(server):expect_reset() end
      p:log(("%%[conn 1%%] script error in the %s hook: [^\n]*policy.lua:%%d+: (boom)"):format(hook))
      p:log "\n    (stack traceback)"
      t:expect_echo(p, server)
    end)
  end

  local objects = {
    ["a table"] = "{}", ["nil"] = "nil", ["a number"] = "42", ["a boolean"] = "false", ["a function"] = "print",
    ["an object that prints itself"] = 'setmetatable({}, { __tostring = function() return "MYSELF" end })',
    ["an object whose printing fails"] = 'setmetatable({}, { __tostring = function() error "inner" end })',
    ["an object that prints no string"] = "setmetatable({}, { __tostring = function() return {} end })",
  }
  for name, object in pairs(objects) do
    case("an error value that is " .. name .. " costs that connection only", function(t)
      t:expect_error "script error"
      local p, server = start(t, ([[
        return { data = function(conn) if conn.seq == 1 then error(%s) end end }]]):format(object))
      local client, upstream = t:pair(p, server)
      client:send "x"
      client:expect_reset()
      upstream:expect_reset()
      p:expect_end { reason = "script" }
      p:log "(script error in the data hook)"
      if name:find "prints itself" then p:log "(MYSELF)" end
      t:expect_echo(p, server)
    end)
  end

  case("the same error again and again does not flood the log", function(t)
    t:expect_error "script error"
    local p = start(t, 'return { accept = function() error "boom" end }')
    for i = 1, 100 do
      t:connect(p):expect_reset()
      p:access(i)
    end
    p:stop()
    local _, times = p.err:gsub("boom", "")
    assert.is_true(times <= 4, p.err)
  end)

  case("an endless loop is interrupted; others were served", function(t)
    t:expect_error "script error"
    local p, server = start(t, "return { data = function(c) if c.seq == 2 then while true do end end end }")
    local first, first_upstream = t:expect_echo(p, server)
    local client = t:pair(p, server)
    client:send "x"
    client:expect_reset()
    p:expect_end { reason = "script", id = 2 }
    first:send "alive"
    first_upstream:expect "alive"
    t:expect_echo(p, server)
  end)

  local hog = [[return { data = function(c)
    if c.seq > 1 then return end
    local hog = {}
    for i = 1, 1e9 do hog[i] = ("x"):rep(%s) .. i end
  end }]]

  case("a script that hogs memory costs that connection; the process lives", function(t)
    t:expect_error "script error"
    local p, server = start(t, hog:format "1e5")
    local client = t:pair(p, server)
    client:send "x"
    client:expect_reset()
    p:expect_end { reason = "script" }
    t:expect_echo(p, server)
  end)

  case("a script that hogs memory by the gigabyte is stopped by the cap of its heap, not by the system's", function(t)
    local p, server = start(t, hog:format "1e7")
    if p:sanitizer() then return end -- its own memory would count
    t:expect_error "script error"
    p:limit_memory(8 * 1024 * MB) -- spares the machine when there is no cap
    local client = t:pair(p, server)
    client:send "x"
    client:expect_reset()
    p:expect_end { reason = "script" }
    assert.is_true(p:memory_kb "VmHWM" < MB, ("%d kB were in use"):format(p:memory_kb "VmHWM"))
    t:expect_echo(p, server)
  end)

  for how, code in pairs {
    ["gsub callbacks"] = [[
      local function f(s) return (s:gsub("%b()", function(x) return f(x:sub(2, -2)) end)) end
      f(("("):rep(30000) .. (")"):rep(30000))]],
    coroutines = "local function f() coroutine.wrap(f)() end f()",
  } do
    case(how .. " nested without end cost that connection; the process lives", function(t)
      t:expect_error "script error"
      local p, server = start(t, ("return { data = function(c, d, s) if s == 'deep' then %s end end }"):format(code))
      local client = t:pair(p, server)
      client:send "deep"
      client:expect_reset()
      p:expect_end { reason = "script" }
      t:expect_echo(p, server)
    end)
  end

  case("errors that differ in their message only are logged once and counted", function(t)
    t:expect_error "script error"
    local p, server = start(t, 'return { data = function(c, d, s) error("bad command: " .. s .. c.id) end }')
    for i = 1, 5 do
      local client = t:pair(p, server)
      client:send("x" .. i)
      client:expect_reset()
      p:expect_end { reason = "script" }
    end
    p:stop()
    local _, told = p.err:gsub("script error in the data hook", "")
    assert.equal(1, told)
    assert.is_truthy(p.err:find "came 4 more times")
  end)

  case("what scripts are given has no way to internal functions and metatables", function(t)
    local p, server = start(t, [[
      assert(debug.getinfo == nil and debug.sethook == nil and io == nil)
      local methods = require "string.buffer".new().__index
      assert(methods == nil, "the metatable of string.buffer is in reach")
      assert(tostring(require "string.buffer".new():put("a", 1)) == "a1")
      assert(not pcall(setfenv, 0, {}))
      setfenv(1, setmetatable({ mine = true }, { __index = getfenv(0) }))
      assert(mine)
      string = nil
      return { data = function(conn) conn.log.info("still %d", 1) end }]])
    t:expect_echo(p, server)
  end)

  case("what came before the error in the stream is not delivered as a clean end", function(t)
    t:expect_error "script error"
    local p, server = start(t, 'return { data = function(c, d, s) if s:find "bad" then error "boom" end end }')
    local client, upstream = t:pair(p, server)
    client:send "good"
    upstream:expect "good"
    p:freeze() -- so that the end is there before the hook fails
    client:send "bad"
    client:finish()
    p:thaw()
    upstream:expect_reset()
  end)
end)

describe("conn:close() and conn:reset():", function()
  for _, hook in ipairs { "accept", "connect", "connected", "data" } do
    for method, how in pairs { close = "eof", reset = "ECONNRESET" } do
      case(("conn:%s() in the %s hook ends the connection once, by %s"):format(method, hook, how), function(t)
        local p, server = start(t, ([[return {
          %s = function(conn)
            if conn.seq > 1 then return end
            assert(conn:%s())
            local ok, err = conn:%s()
            assert(ok == nil and err == "closed")
            conn.log.info "AFTER"
          end,
          close = function(conn, info) conn.log.info("CLOSE %%s", info.reason) end,
        }]]):format(hook, method, method))
        local client = t:connect(p)
        if hook == "data" then client:send "x" end
        local rest, ended = client:read_all()
        assert.same({ "", how }, { rest, ended })
        p:expect_end { reason = "closed" }
        p:log "(AFTER)"
        local _, closes = p.err:gsub("CLOSE closed", "")
        assert.equal(1, closes)
        if hook == "connected" or hook == "data" then
          local _, upstream_ended = t:accept(server):read_all()
          assert.equal(how, upstream_ended)
        end
        t:expect_echo(p, server)
      end)
    end
  end

  case("a hook that closes and then waits is cancelled", function(t)
    local p = start(t, [[return { data = function(conn)
      conn:close()
      ps.sleep(3600)
    end }]])
    local client = t:connect(p)
    client:send "x"
    client:expect_eof()
    p:expect_end { reason = "closed" }
  end)

  case("a conn that the script keeps answers \"closed\" after its end", function(t)
    local p, server = start(t, [[
      local kept
      return { data = function(conn)
        if conn.seq == 1 then kept = conn return end
        local ok, err = kept:tag("a", "b")
        return ("%s %s %s %s"):format(tostring(ok), tostring(err), tostring(kept.id), tostring(kept:close()))
      end }]])
    local client, upstream = t:expect_echo(p, server)
    client:reset()
    upstream:expect_reset()
    p:access(1)
    client, upstream = t:pair(p, server)
    client:send "x"
    upstream:expect "nil closed 1 nil"
  end)
end)
