-- What specs of conn:hello{ starttls = … } share: policies as texts, and the two sides' parts of a dialogue.
local assert = require "luassert"
local t = require "penstock.test"

local starttls = {}

local policy = [[
return { %s = function(conn)
  local hello, why, detail = conn:hello { starttls = %q }
  conn:tag("sni", hello and hello.sni)
  conn:tag("why", why)
  conn:tag("alpn", hello and table.concat(hello.alpn, ","))
  conn:tag("numbers", hello and table.concat(hello.ciphers, ",") .. " " .. table.concat(hello.extensions, ","))
  if %q == "connect" and hello then return hello.sni .. ":99" end
end, %s }]]

-- load(text) -> the policy with this text
function starttls.load(text, options)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write('local ps = require "penstock"\n', text)
  file:close()
  local ok, p = pcall(t.load, path, options or { to = "default.test:99" })
  os.remove(path)
  if not ok then error(p, 0) end
  return p
end

function starttls.start(protocol, hook, more)
  local p = starttls.load(policy:format(hook or "connect", protocol, hook or "connect", more or ""))
  return p, p:upstream "db.test:99", p:upstream "default.test:99"
end

-- The client's part up to its ClientHello; `send` sends one step of it.
function starttls.speak(c, d, send)
  if d.greeted then assert.matches(d.greeted, c:read()) end
  for i, step in ipairs(d.client) do
    send(step.say, i)
    assert.matches(step.hear, c:read())
  end
end

-- The upstream's part. Nothing but this and then the ClientHello may come.
function starttls.answer(u, d)
  for _, step in ipairs(d.upstream) do
    assert.equal(step.hear, u:read())
    u:send(step.say)
  end
end

-- How a dialogue goes on once the ClientHello has been routed: both ways, whatever is said.
function starttls.expect_relayed(c, u, hello)
  assert.equal(hello, u:read())
  u:send "ServerHello"
  assert.equal("ServerHello", c:read())
  c:send "Finished"
  assert.equal("Finished", u:read())
end

return starttls
