-- Dialogues before TLS in which something is wrong: whatever comes, no hook raises, nothing computes for long, and
-- every connection has its end. (The specs' own random numbers: --seed.)
local dialogues = require "support.dialogues"
local t = require "penstock.test"

local ROUNDS = 300
local policy = [[
local ps = require "penstock"
return { connect = function(conn)
  local hello, why = conn:hello { starttls = %q }
  conn:tag("why", why)
  return hello and "db.test:99" or ps.deny { reason = why }
end }]]

local function load(protocol)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write((policy:format(protocol)))
  file:close()
  local ok, p = pcall(t.load, path)
  os.remove(path)
  if not ok then error(p, 0) end
  return p, p:upstream "db.test:99"
end

-- The bytes with something changed, taken out, doubled or put in.
local function mutate(bytes)
  for _ = 1, math.random(3) do
    local at, n = math.random(#bytes + 1), math.random(0, 8)
    local how = math.random(4)
    local before, after = bytes:sub(1, at - 1), bytes:sub(at)
    if how == 1 then
      bytes = before .. string.char(math.random(0, 255)) .. after:sub(2)
    elseif how == 2 then
      bytes = before .. after:sub(n + 1)
    elseif how == 3 then
      bytes = before .. after:sub(1, n):rep(math.random(1, 200)) .. after
    else
      bytes = before .. ("\0\255<>\"'\r\n {}0\132"):sub(math.random(14)):sub(1, n) .. after
    end
  end
  return bytes
end

for protocol, d in pairs { postgres = dialogues.postgres, smtp = dialogues.smtp, imap = dialogues.imap,
  xmpp = dialogues.xmpp, ldap = dialogues.ldap } do
  describe(protocol, function()
    it("is refused from a client that says something else", function()
      local p, u = load(protocol)
      local whys = {}
      for _ = 1, ROUNDS do
        local c, wrong = p:client(), math.random(#d.client)
        for i = 1, wrong do c:send(i == wrong and mutate(d.client[i].say) or d.client[i].say) end
        c:send(mutate(dialogues.hello "db.test"))
        t.advance(1)
        if not c:closed() and #u.connections > 0 then u:finish() end
        t.advance(10)
        if not c:closed() then c:reset() end
        assert.truthy(c:closed())
        whys[c:access().tags.why or "routed"] = true
      end
      assert.is_true(whys.mismatch)
    end)

    it("is refused from an upstream that says something else", function()
      local p, u = load(protocol)
      local ends = {}
      for _ = 1, ROUNDS do
        local c, wrong = p:client(), math.random(#d.upstream)
        for _, step in ipairs(d.client) do c:send(step.say) end
        local before = c:received()
        c:send(dialogues.hello "db.test")
        for i = 1, wrong do
          if not u:ended() then u:send(i == wrong and mutate(d.upstream[i].say) or d.upstream[i].say) end
        end
        if not u:ended() then u:finish() end
        t.advance(30)
        if not c:closed() then c:finish() end
        assert.truthy(c:closed())
        ends[c:closed()] = true
        if c:closed() == "tls" then assert.equal(before, c:received()) end
      end
      assert.is_true(ends.tls)
    end)
  end)
end

describe("MySQL", function()
  it("passes whatever the server and the client say, in order and whole", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write 'return { handshake = function(conn) conn:hello { starttls = "mysql" } end }'
    file:close()
    local p = t.load(path, { to = "db.test:99" })
    os.remove(path)
    local u = p:upstream "db.test:99"
    for _ = 1, ROUNDS do
      local c, greeting = p:client(), mutate(dialogues.mysql.greeting)
      local words = mutate(dialogues.mysql.request .. dialogues.hello "db.test")
      u:send(greeting):finish()
      c:send(words):finish()
      assert.equal(words, u:received())
      assert.equal(greeting, c:received())
      assert.equal("eof", (c:closed()))
    end
  end)
end)
