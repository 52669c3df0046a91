-- A policy that answers the client itself: serve, and ps.reply.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local case, sys = e2e.case, e2e.sys

local none = { target = "-" }

describe("serve", function()
  case("answers line by line, without an upstream", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client)
        for line in client:lines() do
          if line == "quit" then client:write("bye\n") return end
          client:write(line:upper(), "\n")
        end
      end }]], none)
    local client = t:connect(p)
    client:send "hello\nwor"
    client:expect "HELLO\n"
    client:send "ld\nquit\nand more"
    client:expect "WORLD\nbye\n"
    client:expect_eof()
    client:close()
    p:expect_end { reason = "closed", detail = "served", upstream = "-", side = "-" }
  end)

  case("gives way to a destination that the connect hook names", function(t)
    local server = t:listen()
    local p = scripted.start(t, ([[
      return {
        connect = function(conn) if conn:peek(1) == "u" then return %q end end,
        serve = function(conn, client) client:write("served ", (client:line()), "\n") end,
      }]]):format(server.address), none)
    local client = t:connect(p)
    client:send "up\n"
    t:accept(server):expect "up\n"
    local other = t:connect(p)
    other:send "me\n"
    other:expect "served me\n"
    other:expect_eof()
  end)

  case("delivers the whole answer although the client goes on sending", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client) client:write(("x"):rep(3000000)) end }]], none)
    local client = t:connect(p, { rcvbuf = 4096 })
    local got = 0
    while true do
      client:offer(("y"):rep(1000))
      local part, why = client:receive(50000)
      if not part then
        assert.equal("eof", why)
        break
      end
      got = got + #part
    end
    assert.equal(3000000, got)
    client:close()
    p:expect_end { reason = "closed", detail = "served", down = 0 }
  end)

  case("delivers to a client that is slow to begin", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client)
        client:write(("x"):rep(200000))
        conn.log.info "returns"
      end }]], none)
    local client = t:connect(p, { rcvbuf = 4096 })
    p:log "returns"
    sys.pass(0.8)
    assert.equal(200000, #client:read_all())
    client:close()
    p:expect_end { reason = "closed", detail = "served" }
  end)

  case("answers a client that has ended its side", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client)
        local n = 0
        for s in function() return client:read() end do n = n + #s end
        client:write("got ", n)
      end }]], none)
    local client = t:connect(p)
    client:send(("x"):rep(300000)):finish()
    client:expect "got 300000"
    client:expect_eof()
  end)

  case("may end its side first", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client)
        client:write "over"
        client:finish()
        conn:tag("rest", (client:line()))
      end }]], none)
    local client = t:connect(p)
    client:expect("over"):expect_eof()
    client:send "thanks\n"
    client:close()
    p:expect_end { reason = "closed", detail = "served", rest = "thanks" }
  end)

  case("holds little for a client that does not read", function(t)
    local p = scripted.start(t, [[
      return { serve = function(conn, client) while true do client:write(("x"):rep(65536)) end end }]], none)
    local memory = p:memory_kb()
    local client = t:connect(p, { rcvbuf = 4096 })
    client:wait "r"
    sys.pass(0.3)
    assert.is_true(p:memory_kb() - memory < 8192 * (p:sanitizer() and 8 or 1), "it holds too much")
    client:reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  for name, body in pairs {
    ["in a read"] = "client:line()",
    ["in a write"] = "while true do client:write(('x'):rep(100000)) end",
    ["in writes with sleeps"] = "while true do client:write('x') ps.sleep(0.01) end",
    ["in a race"] = "ps.race(function() client:line() end, function() ps.sleep(3600) end)",
  } do
    case(("is cancelled %s when the client is gone"):format(name), function(t)
      local p = scripted.start(t, ([[
        return { serve = function(conn, client)
          conn.log.info "waits"
          local ok, why = pcall(function() %s end)
          conn.log.info("ended by %%s", tostring(why))
          error(why)
        end }]]):format(body), none)
      local client = t:connect(p)
      client:send "some"
      p:log "waits"
      sys.pass(0.1)
      client:reset()
      p:log "ended by ps.CANCELLED"
      p:expect_end { reason = "reset", side = "client" }
    end)
  end

  case("is cancelled in ps.sleep, too, once it has read what the client had sent before it went", function(t)
    local p = scripted.start(t, [[
      local ps = require "penstock"
      return { serve = function(conn, client)
        conn.log.info("has %s", client:line())
        local ok, why = pcall(ps.sleep, 3600)
        conn.log.info("ended by %s", tostring(why))
        error(why)
      end }]], none)
    local client = t:connect(p)
    client:send "GET\n"
    p:log "has GET"
    client:reset()
    p:log "ended by ps.CANCELLED"
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("may read what a client had sent before it went, however long it waits before", function(t)
    local p = scripted.start(t, [[
      local ps = require "penstock"
      local gone = ps.signal()
      ps.spawn(function() ps.sleep(0.3) gone:set(true) end)
      return { serve = function(conn, client)
        conn.log.info "waits"
        gone:wait()
        conn.log.info("has %s and %s", client:line(), client:line())
      end }]], none)
    local client = t:connect(p)
    client:send "one\ntwo\n"
    p:log "waits"
    client:reset()
    p:log "has one and two"
    p:expect_end { reason = "reset", side = "client" }
  end)

  case("that raises resets the client", function(t)
    t:expect_error "script error in the serve hook"
    local p = scripted.start(t, 'return { serve = function(conn, client) client:write "x" error "no" end }', none)
    local client = t:connect(p)
    local _, how = client:read_all()
    assert.equal("ECONNRESET", how)
    p:expect_end { reason = "script" }
  end)

  for name, call in pairs { close = "conn:close()", reset = "conn:reset()", deny = 'conn:deny { reason = "no" }' } do
    case(("is ended by conn:%s"):format(name), function(t)
      local p = scripted.start(t, ([[
        return { serve = function(conn, client)
          client:write("x") %s client:write("y") ps.sleep(1)
        end }]]):format(call), none)
      local client = t:connect(p)
      local got, how = client:read_all()
      assert.equal(name == "reset" and "ECONNRESET" or "eof", how)
      assert.is_true(name == "reset" or got == "x", got)
      p:expect_end(name == "deny" and { reason = "denied", detail = "no" } or { reason = "closed" })
    end)
  end

  case("speaks with others by ps.tcp", function(t)
    local server = t:listen()
    local p = scripted.start(t, ([[
      return { serve = function(conn, client)
        local s = assert(ps.tcp.connect(%q))
        s:write(client:line(), "\n")
        client:write((s:line()), "\n")
      end }]]):format(server.address), none)
    local client = t:connect(p)
    client:send "question\n"
    local other = t:accept(server)
    other:expect "question\n"
    other:send "answer\n"
    client:expect "answer\n"
    client:expect_eof()
  end)
end)

describe("ps.reply", function()
  case("answers from the connect hook, and ends", function(t)
    local p = scripted.start(t, 'return { connect = function() return ps.reply "sorry\\n" end }', none)
    local client = t:connect(p)
    client:send "whatever"
    client:expect "sorry\n"
    client:expect_eof()
    client:close()
    p:expect_end { reason = "closed", detail = "reply" }
  end)

  case("answers from the failed hook", function(t)
    local p = scripted.start(t, 'return { failed = function(conn, dest, err) return ps.reply(err .. "\\n") end }',
      { target = t:refusing().address })
    local client = t:connect(p)
    client:expect "refused\n"
    client:expect_eof()
  end)

  case("comes after what was injected, and drops what was meant for the upstream", function(t)
    local p = scripted.start(t, [[
      return { connect = function(conn)
        conn:peek(1)
        conn:inject("down", "first ")
        conn:inject("up", "nobody")
        return ps.reply "second"
      end }]], none)
    local client = t:connect(p)
    client:send "x"
    client:expect "first second"
    client:expect_eof()
    client:close()
    p:expect_end { reason = "closed", detail = "reply" }
  end)

  case("of a megabyte is delivered to a slow client that goes on sending", function(t)
    local p = scripted.start(t, 'return { connect = function() return ps.reply(("x"):rep(1000000)) end }', none)
    local client = t:connect(p, { rcvbuf = 4096 })
    client:send(("y"):rep(100000))
    sys.pass(0.3)
    local got, how = client:read_all()
    assert.equal(1000000, #got)
    assert.equal("eof", how)
  end)

  case("to a client that is gone ends at once", function(t)
    local p = scripted.start(t, [[
      return { connect = function(conn)
        conn.log.info "asked"
        ps.sleep(0.1)
        return ps.reply(("x"):rep(1000000))
      end }]], none)
    local client = t:connect(p)
    p:log "asked"
    client:close()
    p:expect_end { side = "client" }
  end)

  case("of something else is explained", function(t)
    t:expect_error "script error in the connect hook"
    local p = scripted.start(t, "return { connect = function() return ps.reply(7) end }", none)
    t:connect(p):expect_reset()
    p:log "ps.reply%(bytes%): a string is expected, got number"
  end)

  case("from a hook that cannot reply is explained", function(t)
    t:expect_error "script error in the accept hook"
    local p = scripted.start(t, 'return { accept = function() return ps.reply "x" end }', none)
    t:connect(p):expect_reset()
    p:log "accept hook returned"
  end)
end)
