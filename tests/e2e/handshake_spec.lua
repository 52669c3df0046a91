-- What a policy does before bytes are relayed: looking at the client, speaking with both sides, putting bytes in.
local e2e = require "tests.e2e.support.case"
local scripted = require "tests.e2e.support.scripted"
local case, bulk, sys = e2e.case, e2e.bulk, e2e.sys

local function byte_by_byte(socket, text)
  for i = 1, #text do
    socket:send(text:sub(i, i))
    socket:wait_delivered()
  end
end

for _, hook in ipairs { "accept", "connect", "connected" } do
  describe("in " .. hook .. ",", function()
    case("peek sees what the client sends byte by byte, and the upstream gets it all", function(t)
      local p, server = scripted.start(t, ([[
        return { %s = function(conn)
          conn:tag("first", (conn:peek(5)))
          conn:tag("line", (conn:peek_line(100)))
          conn:tag("again", (conn:peek(7)))
        end }]]):format(hook))
      local client = t:connect(p)
      byte_by_byte(client, "hello world\r\n")
      local upstream = t:accept(server)
      client:send "more"
      client:finish()
      upstream:expect "hello world\r\nmore"
      upstream:expect_eof()
      upstream:close()
      client:expect_eof()
      p:expect_end { first = "hello", line = "hello world", again = "hello w", reason = "eof" }
    end)

    case("peek gives up after the handshake timeout, however often a byte comes", function(t)
      local p, server = scripted.start(t, ([[
        return { %s = function(conn)
          conn:timeout { handshake = 0.3 }
          local s, why = conn:peek_line(1000)
          conn.log.info("peeked %%s, %%s", tostring(s), why)
        end }]]):format(hook))
      local client = t:connect(p)
      local from = sys.now()
      while not p.err:find "peeked" and sys.now() - from < 5 do
        client:send "."
        sys.pass(0.02)
      end
      p:log "peeked nil, timeout"
      assert.is_true(sys.now() - from >= 0.28)
      local upstream = t:accept(server)
      client:finish()
      assert.equal(client.sent, #upstream:read_all())
    end)

    case("peek says eof when the client has ended, and too_long when there is no line", function(t)
      local p, server = scripted.start(t, ([[
        return { %s = function(conn)
          local a, b = conn:peek_line(3)
          local c, d = conn:peek(100)
          conn.log.info("peeked %%s %%s %%s %%s", tostring(a), b, tostring(c), d)
        end }]]):format(hook))
      local client = t:connect(p)
      client:send("abcdef"):finish()
      p:log "peeked nil too_long nil eof"
      local upstream = t:accept(server)
      upstream:expect("abcdef"):expect_eof()
      upstream:send("reply"):finish()
      client:expect("reply"):expect_eof()
    end)

    case("a client that resets while it is looked at ends at once", function(t)
      local p = scripted.start(t, ([[
        return { %s = function(conn) conn.log.info "looks" conn:peek(10) conn.log.info "too far" end }]]):format(hook))
      local client = t:connect(p)
      p:log "looks"
      client:send "abc"
      client:wait_delivered()
      client:reset()
      p:expect_end { reason = "reset", side = "client" }
      assert.is_nil(p.err:find "too far")
    end)

    case("what is injected for the client reaches it before there is an upstream", function(t)
      local server = t:listen()
      local p = t:penstock { "-p", t:file("p.lua", [[
        return { accept = function(conn)
          assert(conn:inject("down", "who? "))
          conn:tag("who", conn:peek_line())
        end }
      ]]), "127.0.0.1:0", server.address }
      local client = t:connect(p)
      client:expect "who? "
      client:send "me\n"
      local upstream = t:accept(server)
      upstream:expect "me\n"
      upstream:send "hello"
      client:expect "hello"
    end)

    case("inject puts bytes before all others, in order, in both directions", function(t)
      local p, server = scripted.start(t, ([[
        return { %s = function(conn)
          assert(conn:inject("up", "<1>"))
          assert(conn:inject("down", "(1)"))
          if conn:peek(1) == "L" then assert(conn:inject("up", ("x"):rep(200000))) end
          assert(conn:inject("up", "<2>"))
          assert(conn:inject("down", "(2)"))
        end }]]):format(hook))
      for _, text in ipairs { "Short", "Long" } do
        local client = t:connect(p)
        client:send(text)
        local upstream = t:accept(server)
        upstream:send "reply"
        client:expect "(1)(2)reply"
        client:finish()
        upstream:expect("<1>" .. (text == "Long" and ("x"):rep(200000) or "") .. "<2>" .. text)
        upstream:expect_eof()
        upstream:close()
        client:expect_eof()
      end
    end)

    for name, call in pairs { close = "conn:close()", reset = "conn:reset()", deny = 'conn:deny { reason = "no" }' } do
      case(("conn:%s ends it, and what the hook returns does not count"):format(name), function(t)
        local p, server = scripted.start(t, ([[
          return { %s = function(conn)
            %s
            local ok, why = conn:peek(1)
            conn.log.info("then %%s %%s", tostring(ok), why)
            ps.sleep(1)
            conn.log.info "too far"
          end }]]):format(hook, call))
        local client = t:connect(p)
        if name == "reset" then client:expect_reset() else client:expect_eof() end
        p:expect_end(name == "deny" and { reason = "denied", detail = "no" } or { reason = "closed" })
        p:log "then nil closed"
        assert.is_nil(p.err:find "too far")
        local upstream = server:try_accept(0)
        if upstream then upstream:close() end
      end)
    end
  end)
end

case("a client that peeks never keeps a server that speaks first from being heard", function(t)
  local p, server = scripted.start(t, [[
    return { filter = { down = function(conn, rd, wr) wr:write("[", rd:read(), "]") end } }]])
  local client, upstream = t:pair(p, server)
  upstream:send "220 ready"
  client:expect "[220 ready]"
end)

describe("a handshake", function()
  case("speaks with both sides, and what is left over goes to the relay in order", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client, upstream)
        local hello = client:line()
        upstream:write("HELLO ", hello, "\n")
        local answer = upstream:line()
        client:write("OK ", answer, "\n")
        conn:tag("hello", hello)
      end }]])
    local client, upstream = t:pair(p, server)
    client:send "alice\nleft over up"
    upstream:expect "HELLO alice\n"
    upstream:send "welcome\nleft over down"
    client:expect "OK welcome\nleft over down"
    upstream:expect "left over up"
    bulk.run { { from = client, to = upstream, bytes = 4000000, finish = true },
      { from = upstream, to = client, bytes = 5000000, finish = true } }
    p:expect_end { reason = "eof", hello = "alice" }
  end)

  case("leaves what is left over to the filters", function(t)
    local p, server = scripted.start(t, [[
      local function upper(conn, rd, wr)
        for s in function() return rd:read() end do wr:write((s:upper())) end
      end
      return {
        handshake = function(conn, client, upstream) client:peek(8) client:exactly(2) upstream:exactly(2) end,
        filter = { up = upper, down = upper },
      }]])
    local client, upstream = t:pair(p, server)
    client:send "abcdefgh"
    upstream:send "stuvwxyz"
    upstream:expect "CDEFGH"
    client:expect "UVWXYZ"
    client:finish()
    upstream:expect_eof()
  end)

  case("that takes longer than its time ends by timeout, however often a byte comes", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client) client:line() end }]], { args = { "--handshake-timeout", "0.3" } })
    local client = t:pair(p, server)
    local from = sys.now()
    while #p:access_lines() == 0 and sys.now() - from < 5 do
      client:offer "."
      sys.pass(0.02)
    end
    p:expect_end { reason = "timeout", detail = "handshake" }
  end)

  case("may set its own time", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client) conn:timeout { handshake = 0.1 } client:line() end }]])
    t:pair(p, server)
    p:expect_end { reason = "timeout", detail = "handshake" }
  end)

  case("may deny", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client, upstream)
        if client:line() ~= "secret" then return ps.deny { reason = "password" } end
      end }]])
    local client, upstream = t:pair(p, server)
    client:send "guess\n"
    client:expect_eof()
    upstream:expect_eof()
    p:expect_end { reason = "denied", detail = "password" }
  end)

  case("that raises resets both", function(t)
    t:expect_error "script error in the handshake hook"
    local p, server = scripted.start(t, 'return { handshake = function(conn, client) client:line() error "no" end }')
    local client, upstream = t:pair(p, server)
    client:send "x\n"
    client:expect_reset()
    upstream:expect_reset()
    p:expect_end { reason = "script" }
  end)

  case("answers on after one side has ended", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client, upstream)
        assert(client:line() == "last")
        assert(client:read() == nil)
        upstream:write("it has ended\n")
        client:write("so you have\n")
      end }]])
    local client, upstream = t:pair(p, server)
    client:send("last\n"):finish()
    upstream:expect("it has ended\n"):expect_eof()
    upstream:send("reply"):finish()
    client:expect("so you have\nreply"):expect_eof()
  end)

  case("in which a client resets while it waits for something else ends at once", function(t)
    local p, server = scripted.start(t, [[
      local ps = require "penstock"
      return { handshake = function(conn, client)
        conn.log.info("has %s", client:line())
        local ok, why = pcall(ps.sleep, 3600)
        conn.log.info("ended by %s", tostring(why))
        error(why)
      end }]])
    local client, upstream = t:pair(p, server)
    client:send "hello\n"
    p:log "has hello"
    client:reset()
    p:log "ended by ps.CANCELLED"
    upstream:expect_reset()
    p:expect_end { reason = "reset", side = "client" }
  end)

  for _, side in ipairs { "client", "upstream" } do
    case(("in which the %s resets while it is read ends at once"):format(side), function(t)
      local p, server = scripted.start(t, ([[
        return { handshake = function(conn, client, upstream)
          conn.log.info "reads"
          %s:line()
          conn.log.info "too far"
        end }]]):format(side))
      local client, upstream = t:pair(p, server)
      local it, other = client, upstream
      if side == "upstream" then it, other = other, it end
      it:send "half a line"
      it:wait_delivered()
      p:log "reads"
      it:reset()
      other:expect_reset()
      p:expect_end { reason = "reset", side = side }
      assert.is_nil(p.err:find "too far")
    end)

    case(("in which the %s resets while much is written to it ends at once"):format(side), function(t)
      local p, server = scripted.start(t, ([[
        return { handshake = function(conn, client, upstream)
          conn.log.info "writes"
          while true do %s:write(("x"):rep(100000)) end
        end }]]):format(side), { listen = { rcvbuf = 4096 } })
      local client, upstream = t:pair(p, server)
      local it, other = client, upstream
      if side == "upstream" then it, other = other, it end
      it:send "not read"
      p:log "writes"
      it:wait "r"
      sys.pass(0.1)
      it:reset()
      other:expect_reset()
      p:expect_end { reason = "reset", side = side }
    end)
  end

  case("that ends while an abort is still being delivered disturbs nothing", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client, upstream)
        upstream:write(client:exactly(900000))
        conn.log.info "written"
        ps.spawn(function() client:read() end)
        ps.sleep(0.3)
        upstream:write "late"
        conn.log.info "over"
      end }]], { listen = { rcvbuf = 4096 } })
    local client, upstream = t:pair(p, server)
    local text = bulk.text(0, 900000)
    client:send(text)
    client:wait_delivered()
    client:reset()
    sys.pass(0.6)
    local got, how = upstream:read_all()
    assert.is_true(text:sub(1, #got) == got:sub(1, #text))
    assert.equal(#text, math.min(#got, #text))
    assert.equal("ECONNRESET", how)
  end)

  case("keeps no task or stream behind when it ends early", function(t)
    local p, server = scripted.start(t, [[
      return { handshake = function(conn, client, upstream)
        ps.spawn(function() local s, why = client:read() conn.log.info("spawned %s %s", tostring(s), tostring(why)) end)
        ps.sleep(0.01)
      end }]])
    local client, upstream = t:pair(p, server)
    p:log "spawned nil closed"
    client:send "all of it"
    upstream:expect "all of it"
  end)
end)
