local t = require "penstock.test"
local inline = require "support.inline"

-- A command as clients send it.
local function cmd(...)
  local parts = { ("*%d\r\n"):format(select("#", ...)) }
  for _, word in ipairs { ... } do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
  return table.concat(parts)
end

local function err(name) return ("-ERR command '%s' is not allowed here\r\n"):format(name) end

describe("redis", function()
  local p, u, c

  local function start(options)
    p = inline.load("redis", options)
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end

  it("lets through what is not denied, and answers the rest, wherever the input is split", function()
    local input = cmd("SET", "k", "v\r\n*1\r\n") .. cmd("flushall") .. cmd("GET", "") .. "PING x\r\n" .. "FLUSHALL\r\n"
    t.splits(input, function(parts)
      start '{ deny = { "FLUSHALL" } }'
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(cmd("SET", "k", "v\r\n*1\r\n") .. cmd("GET", "") .. cmd("PING", "x"), u:received())
      assert.equal("", c:received())
      u:send "+OK\r\n"
      assert.equal("+OK\r\n" .. err "flushall", c:received())
      u:send "$-1\r\n+x\r\n"
      assert.equal("+OK\r\n" .. err "flushall" .. "$-1\r\n+x\r\n" .. err "flushall", c:received())
      c:finish()
      assert.equal("fin", u:ended())
    end)
  end)

  it("keeps the order of replies, wherever those of the server are split", function()
    local replies = {
      "*2\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n$-1\r\n", "%1\r\n+k\r\n~1\r\n#t\r\n", "*0\r\n", "*-1\r\n",
      "-ERR x\r\n",
      ">2\r\n+push\r\n:1\r\n_\r\n", "|1\r\n+ttl\r\n,1.5\r\n(123\r\n", "=7\r\ntxt:abc\r\n",
      "!3\r\nERR\r\n" }
    t.splits(table.concat(replies), function(parts)
      start '{ deny = { "x" } }'
      local want = {}
      for i, reply in ipairs(replies) do
        c:send(cmd("GET", "k") .. cmd("X"))
        want[i] = reply .. err "x"
      end
      for _, part in ipairs(parts) do u:send(part) end
      assert.equal(table.concat(want), c:received())
    end)
  end)

  it("answers at once when the server owes no reply", function()
    start '{ allow = { "GET" } }'
    c:send(cmd "SET")
    assert.equal(err "set", c:received())
    c:send(cmd("GET", "a"))
    u:send "$1\r\n1\r\n"
    c:send(cmd "SET" .. cmd "DEL")
    assert.equal(err "set" .. "$1\r\n1\r\n" .. err "set" .. err "del", c:received())
    assert.equal(cmd("GET", "a"), u:received())
  end)

  it("does not answer into the middle of a reply", function()
    start '{ deny = { "x" } }'
    c:send(cmd "GET")
    u:send "*2\r\n$1\r\na\r\n"
    c:send(cmd "X")
    u:send "$1\r\nb\r\n"
    assert.equal("*2\r\n$1\r\na\r\n$1\r\nb\r\n" .. err "x", c:received())
  end)

  it("passes large values both ways, and drops those of commands that are denied", function()
    start '{ deny = { "x" } }'
    local big = ("v"):rep(3 * 2 ^ 20)
    c:send(cmd("SET", "k", big) .. cmd("X", big, "y", big) .. cmd("PING"))
    assert.equal(cmd("SET", "k", big) .. cmd("PING"), u:received())
    u:send(("$%d\r\n%s\r\n"):format(#big, big))
    u:send "+PONG\r\n"
    assert.equal(("$%d\r\n%s\r\n"):format(#big, big) .. err "x" .. "+PONG\r\n", c:received())
  end)

  it("knows parts of commands", function()
    start '{ deny = { "CONFIG" }, allow = { "config get", "CONFIG", "PING" } }'
    c:send(cmd("CONFIG", "SET", "a", "b") .. cmd("CONFIG", "get", "a") .. cmd("config") .. cmd("PING"))
    assert.equal(cmd("CONFIG", "get", "a") .. cmd("PING"), u:received())
    u:send "*0\r\n+PONG\r\n"
    assert.equal(err "config set" .. "*0\r\n" .. err "config" .. "+PONG\r\n", c:received())
    start '{ deny = { "CONFIG SET" } }'
    c:send(cmd("CONFIG", "SET", "a", "b") .. cmd("CONFIG", "GET", "a") .. cmd("CONFIG", ("x"):rep(100)))
    assert.equal(cmd("CONFIG", "GET", "a"), u:received())
    u:send "*0\r\n"
    assert.equal(err "config set" .. "*0\r\n" .. err "?", c:received())
  end)

  it("refuses names that Redis would read otherwise than they look: zero bytes, controls, long ones", function()
    for _, name in ipairs { "FLUSHALL\0", "FLUSHALL\0x", "\1FLUSHALL", "FLUSHALL\r\n", ("F"):rep(65), "\0" } do
      start '{ deny = { "FLUSHALL" } }'
      c:send(cmd(name) .. cmd(name, "k", ("v"):rep(20000)) .. cmd "PING")
      assert.equal(cmd "PING", u:received())
      u:send "+PONG\r\n"
      assert.equal(err "?" .. err "?" .. "+PONG\r\n", c:received())
    end
    for _, part in ipairs { "SET\0", "SET\0x", "\tSET", "SET" .. ("x"):rep(65) } do
      start '{ deny = { "CONFIG SET" } }'
      c:send(cmd("CONFIG", part, "a", "b") .. cmd("GET", part))
      assert.equal(cmd("GET", part), u:received())
    end
  end)

  it("tells of a refused command no more than its name", function()
    start '{ deny = { "x", "CONFIG SET" } }'
    local long = ("v"):rep(60000)
    c:send(cmd("X", long) .. "x " .. long .. "\r\n")
    assert.equal(err "x" .. err "x", c:received())
  end)

  it("lets only readers through when it is read-only", function()
    start '{ read_only = true, allow = { "INCR" }, deny = { "KEYS" } }'
    for _, one in ipairs { "SET", "DEL", "EVAL", "SORT", "KEYS", "NOSUCH", ("G"):rep(100) } do
      c:send(cmd(one, "k"))
      assert.matches("^%-ERR command '", c:read())
    end
    c:send(cmd("CLIENT", "KILL"))
    assert.equal(err "client kill", c:read())
    assert.equal("", u:received())
    local good = cmd("get", "k") .. cmd("INCR", "k") .. cmd("CLIENT", "GETNAME")
    c:send(good)
    assert.equal(good, u:received())
  end)

  it("renames", function()
    start '{ rename = { flush_it = "FLUSHALL" }, deny = { "FLUSHALL" } }'
    c:send(cmd("FLUSH_IT", "ASYNC") .. cmd("FLUSHALL") .. "flush_it\r\n")
    assert.equal(cmd("FLUSHALL", "ASYNC") .. cmd("FLUSHALL"), u:received())
  end)

  it("discards a transaction in which a command was denied, as Redis would", function()
    start '{ deny = { "x" } }'
    c:send(cmd "MULTI" .. cmd("SET", "a", "b") .. cmd "X" .. cmd "EXEC" .. cmd "PING")
    assert.equal(cmd "MULTI" .. cmd("SET", "a", "b") .. cmd "DISCARD" .. cmd "PING", u:received())
    u:send "+OK\r\n+QUEUED\r\n+OK\r\n+PONG\r\n"
    assert.equal("+OK\r\n+QUEUED\r\n" .. err "x" ..
      "-EXECABORT Transaction discarded because of previous errors.\r\n+PONG\r\n", c:received())
    c:read()
    c:send(cmd "MULTI" .. cmd "EXEC")
    u:send "+OK\r\n*0\r\n"
    assert.equal("+OK\r\n*0\r\n", c:read())
  end)

  it("passes a push that comes before a reply that is for nobody", function()
    start '{ deny = { "x" } }'
    c:send(cmd "MULTI" .. cmd "X" .. cmd "EXEC")
    u:send "+OK\r\n>2\r\n+push\r\n:1\r\n+OK\r\n"
    assert.equal("+OK\r\n" .. err "x" .. ">2\r\n+push\r\n:1\r\n" ..
      "-EXECABORT Transaction discarded because of previous errors.\r\n", c:received())
  end)

  it("resets on EXEC of a transaction in which a command was denied, once replies have no order", function()
    start '{ deny = { "x" } }'
    c:send(cmd "MULTI" .. cmd "X" .. cmd("SUBSCRIBE", "a") .. cmd "EXEC")
    assert.same({ "rst", "denied", "redis_command" }, { c:ended(), c:closed() })
    assert.equal(cmd "MULTI" .. cmd("SUBSCRIBE", "a"), u:received())
  end)

  it("reads inline commands as Redis does, and refuses those that could be read otherwise", function()
    start '{ deny = { "x" } }'
    c:send("\r\nget\t a  b\n*0\r\n*-1\r\n\"x\"\r\n\\x58\r\nX 'a\r\n")
    assert.equal(cmd("get", "a", "b"), u:received())
    u:send "+1\r\n"
    assert.equal("+1\r\n" .. err "inline" .. err "inline" .. err "inline", c:received())
  end)

  it("resets who does not speak the protocol", function()
    for _, bad in ipairs {
      "*x\r\n", "*1\n$1\r\na\r\n", "*1\r\n+a\r\n", "*1\r\n$1\r\nabc", "*2000000\r\n", "*1\r\n$x\r\n",
    } do
      start '{ deny = { "x" } }'
      c:send(bad)
      assert.same({ "rst", "redis_protocol", "" }, { c:ended(), select(2, c:closed()), u:received() })
    end
  end)

  it("resets browsers, as Redis does", function()
    start '{ deny = { "x" } }'
    c:send "POST / HTTP/1.1\r\nHost: a\r\n\r\nFLUSHALL\r\n"
    assert.same({ "rst", "redis_http", "" }, { c:ended(), select(2, c:closed()), u:received() })
  end)

  it("resets on what is denied once replies have no order: pub/sub, MONITOR, CLIENT REPLY", function()
    for _, stream in ipairs { cmd("SUBSCRIBE", "a", "b"), cmd "monitor", cmd("client", "reply", "off") } do
      start '{ deny = { "x" } }'
      c:send(cmd "PING" .. stream)
      u:send "+PONG\r\n*3\r\n+message\r\nodd"
      assert.equal("+PONG\r\n*3\r\n+message\r\nodd", c:received())
      c:send(cmd "PING")
      assert.equal(cmd "PING" .. stream .. cmd "PING", u:received())
      c:send(cmd "X")
      assert.same({ "rst", "denied", "redis_command" }, { c:ended(), c:closed() })
    end
  end)

  it("can reset instead of answering", function()
    start '{ deny = { "x" }, over = "reset" }'
    c:send(cmd "PING")
    u:send "odd"
    assert.equal("odd", c:received())
    c:send(cmd "X")
    assert.same({ "rst", "denied", "redis_command" }, { c:ended(), c:closed() })
  end)

  it("reads no more of a client that takes no answers", function()
    start '{ deny = { "x" } }'
    c:stop_reading()
    local many = cmd("X"):rep(100000)
    c:send(many)
    t.advance(1)
    assert.is_true(c:unsent() > 0)
    c:start_reading()
    t.advance(60)
    assert.equal(0, c:unsent())
    assert.equal(100000 * #err "x", #c:received())
    start '{ deny = { "x" } }'
    c:send(cmd "PING" .. many)
    assert.is_true(c:unsent() > 0)
    u:send "+PONG\r\n"
    t.advance(60)
    assert.equal("+PONG\r\n" .. err("x"):rep(100000), c:received())
  end)

  it("drops a command that the client has not finished", function()
    start '{ deny = { "x" } }'
    c:send(cmd "PING" .. "*2\r\n$3\r\nGE"):finish()
    assert.equal(cmd "PING", u:received())
    assert.equal("fin", u:ended())
    u:send("+PONG\r\n"):finish()
    assert.same({ "+PONG\r\n", "fin" }, { c:received(), c:ended() })
  end)

  it("counts what it does not let through", function()
    start [[{ deny = { "x" } }
      policy.close = function(conn) conn:tag("all", ps.metrics():match "\npolicy_redis_denied_total (%d+)") end]]
    c:send(cmd "X" .. cmd "PING" .. cmd "X\0"):reset()
    assert.equal("2", c:access().tags.all)
  end)

  it("says what it is told to say", function()
    start [[{ deny = { "x" }, message = "NOPERM no %c" }]]
    c:send(cmd "X")
    assert.equal("-NOPERM no x\r\n", c:received())
  end)

  it("refuses what makes no sense", function()
    inline.refuses("redis", "{}", "there is no rule")
    inline.refuses("redis", '{ deny = { "A B C" } }', '"A B C" is no command')
    inline.refuses("redis", '{ deny = { "A", nil, "B" } }', "deny is a list of texts without gaps: its item 2 is nil")
    inline.refuses("redis", '{ denny = {} }', 'did you mean "deny"?')
    inline.refuses("redis", '{ rename = { A = 1 } }', "rename: what the client says")
    inline.refuses("redis", '{ deny = "x", message = "a\\nb" }', "message is one line")
    inline.refuses("redis", '{ deny = "x", over = "close" }', 'over is "error" or "reset"')
  end)
end)
