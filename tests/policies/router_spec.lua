local t = require "penstock.test"
local inline = require "support.inline"

-- A ClientHello for this name, or without one.
local function hello(name)
  local extensions = ""
  if name then
    local entry = "\0\0" .. string.char(#name) .. name
    extensions = "\0\0\0" .. string.char(#entry + 2) .. "\0" .. string.char(#entry) .. entry
  end
  local body = "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\2\19\1" .. "\1\0"
  body = body .. "\0" .. string.char(#extensions) .. extensions
  local message = "\1\0\0" .. string.char(#body) .. body
  return "\22\3\1\0" .. string.char(#message) .. message
end

local function http(host) return "GET / HTTP/1.1\r\nHost: " .. host .. "\r\n\r\n" end

describe("router", function()
  local routes = [[{ names = { ["db.lab"] = "10.0.0.5:80", ["*.lab"] = "10.0.0.6:80", ["*.web.lab"] = { "10.0.0.7:80" },
    ["f.test"] = function(conn, name) conn:tag("f", name) return "10.0.0.8:80" end,
    ["pool.test"] = { pick = function() return "10.0.0.8:80" end } }, %s }]]

  local function start(more)
    local p = inline.load("router", routes:format(more or ""), {})
    local all = {}
    for i = 5, 9 do all[i] = p:upstream(("10.0.0.%d:80"):format(i)) end
    return p, all
  end

  -- The server that this greeting leads to, or nil.
  local function reached(greeting, more)
    local p, all = start(more)
    local c = p:client():send(greeting)
    for i, u in pairs(all) do
      if #u.connections > 0 then
        assert.equal(greeting, u:received())
        return i, c
      end
    end
    return nil, c
  end

  it("leads to the server of the name, wherever the hello is split", function()
    local bytes = hello "db.lab"
    t.splits(bytes, function(parts)
      local p, all = start()
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(bytes, all[5]:received())
    end)
  end)

  it("leads by Host when it is HTTP, wherever that is split", function()
    local bytes = http "DB.lab:8080"
    t.splits(bytes, function(parts)
      local p, all = start()
      local c = p:client()
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(bytes, all[5]:received())
    end)
  end)

  it("prefers exact names, then the longest wild card, whatever the case", function()
    assert.equal(5, (reached(hello "Db.Lab")))
    assert.equal(6, (reached(hello "x.lab")))
    assert.equal(6, (reached(hello "a.b.lab")))
    assert.equal(6, (reached(hello "web.lab")))
    assert.equal(7, (reached(hello "a.web.lab")))
    assert.equal(7, (reached(hello "a.b.web.lab")))
    assert.equal(7, (reached(http "a.web.lab.")))
    assert.is_nil((reached(hello "lab")))
    assert.is_nil((reached(hello "xlab")))
  end)

  it("takes functions and pools for destinations", function()
    local i, c = reached(http "f.test")
    assert.equal(8, i)
    c:reset()
    assert.same({ "f.test", "f.test" }, { c:access().tags.name, c:access().tags.f })
    assert.equal(8, (reached(http "pool.test")))
  end)

  it("denies when the pool of a name has no server, and never leads to the listener's destination instead", function()
    local p = inline.load("router", [[{ names = {
      ["pool.test"] = { pick = function() return nil, "all_down" end },
      ["real.test"] = ps.pool { name = "none", servers = { "10.0.0.5:80" }, check = { every = 1, fall = 1 } } } }]])
    local own, down = p:upstream "127.0.0.1:7001", p:upstream "10.0.0.5:80"
    p:fail("10.0.0.5:80", "refused", 3)
    t.advance(2)
    local c = p:client():send(http "pool.test")
    assert.same({ "denied", "all_down" }, { c:closed() })
    c = p:client():send(http "real.test")
    assert.is_string(c:ended())
    assert.same({ 0, "" }, { #own.connections, down:received() })
  end)

  it("sends those without a route, without a name and without either protocol to the default", function()
    local default = 'default = "10.0.0.9:80"'
    for _, greeting in ipairs { hello "x.test", http "x.test", hello(nil), "SSH-2.0-x\r\n" } do
      assert.equal(9, (reached(greeting, default)))
    end
  end)

  it("turns away what is unknown, as it is told to", function()
    local function ends(more)
      local _, c = reached(http "x.test", more)
      if not c:closed() then c:finish() end
      return { c:ended(), select(2, c:closed()), c:received() }
    end
    assert.same({ "fin", "no_route", "" }, ends())
    assert.same({ "rst", "no_route", "" }, ends 'unknown = "reset"')
    assert.same({ "fin", "reply", "no\n" }, ends 'unknown = ps.reply "no\\n"')
    assert.same({ "fin", "who", "" }, ends 'unknown = ps.deny { reason = "who" }')
    assert.same({ "fin", "reply", "x.test?" }, ends 'unknown = function(_, name) return ps.reply(name .. "?") end')
  end)

  it("waits for a whole greeting no longer than the handshake timeout", function()
    local p = inline.load("router", routes:format 'default = "10.0.0.9:80"', { timeouts = { handshake = 5 } })
    local c = p:client():send(hello("db.lab"):sub(1, 20))
    t.advance(5)
    assert.same({ "fin", "denied", "timeout" }, { c:ended(), c:closed() })
  end)

  it("looks for one of the two only when told so", function()
    assert.is_nil((reached(http "db.lab", "http = false")))
    assert.equal(5, (reached(hello "db.lab", "http = false")))
    assert.is_nil((reached(hello "db.lab", "tls = false")))
    assert.equal(5, (reached(http "db.lab", "tls = false")))
  end)

  it("looks for the name behind STARTTLS, and lets a client without TLS go to the default", function()
    local more = 'starttls = "postgres", default = "10.0.0.9:80"'
    local p, all = start(more)
    local request, greeting = "\0\0\0\8\4\210\22\47", hello "db.lab"
    local c = p:client():send(request)
    assert.equal("S", c:read())
    c:send(greeting)
    assert.equal(request, all[5]:read())
    all[5]:send "S"
    assert.equal(greeting, all[5]:read())
    assert.equal("db.lab", c:reset():access().tags.name)
    assert.equal(9, (reached("\0\0\0\9\0\3\0\0\0", more)))
    assert.equal(5, (reached(hello "db.lab", more)))
  end)

  it("refuses what makes no sense", function()
    inline.refuses("router", '{ names = { ["a.b"] = "a:1" }, starttls = "mysql" }', "starttls is ")
    inline.refuses("router", '{ names = { ["a.b"] = "a:1" }, starttls = "smtp", http = true }', "tls stays true")
    inline.refuses("router", "{}", "there is no name")
    inline.refuses("router", '{ names = { ["*"] = "a:1" } }', "default = … for all others")
    inline.refuses("router", '{ names = { ["a.*.b"] = "a:1" } }', '"a.*.b" is no name')
    inline.refuses("router", '{ names = { ["a.b"] = "a:1", ["A.b."] = "a:1" } }', '"a.b" is given twice')
    inline.refuses("router", '{ names = { ["a.b"] = 7 } }', 'names["a.b"]: a destination is')
    inline.refuses("router", '{ names = { ["a.b"] = "a:1" }, unknown = "no" }', "unknown is")
    inline.refuses("router", '{ names = { ["a.b"] = "a:1" }, defualt = "b:1" }', 'did you mean "default"?')
    inline.refuses("router", '{ names = { ["a.b"] = "a:1" }, tls = false, http = false }', "no name to find")
  end)
end)
