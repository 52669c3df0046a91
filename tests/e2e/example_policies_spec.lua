-- The policies of examples/ over real sockets. What they do in every case is in their specs, beside them.
local e2e = require "tests.e2e.support.case"
local examples = require "tests.e2e.support.examples"
local case, sys = e2e.case, e2e.sys
local policy = examples.policy

local request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

describe("allow-list.lua:", function()
  case("a listed client reaches the server", function(t)
    local server = t:listen()
    t:expect_echo(policy(t, "allow-list", server.address), server)
  end)

  case("any other is reset", function(t)
    local p = policy(t, "allow-list", t:listen().address, { ['"^127%."'] = '"^128%."' })
    t:connect(p):expect_reset()
    p:expect_end { reason = "denied", detail = "not_listed" }
  end)
end)

describe("back-off.lua:", function()
  case("a server that comes back is reached by the client that waits", function(t)
    local server, dead = t:listen(), t:refusing()
    local moves = ("return wait < 2 and dest or %q"):format(server.address)
    local p = policy(t, "back-off", dead.address, { ["return dest"] = moves })
    t:expect_echo(p, server)
    p:log("refused")
  end)
end)

describe("canary.lua:", function()
  case("the new version is tried, and the old one serves while it is down", function(t)
    local old, new, dead = t:listen(), t:listen(), t:refusing()
    local p = policy(t, "canary", old.address, { ["share = \"app-next.internal:80\", 0.1"] =
      ("share = %q, 1"):format(new.address), ["app.internal:80\" }"] = old.address .. '" }' })
    t:expect_echo(p, new):finish()
    local q = policy(t, "canary", old.address, { ["share = \"app-next.internal:80\", 0.1"] =
      ("share = %q, 1"):format(dead.address), ["app.internal:80\" }"] = old.address .. '" }' })
    local client, upstream = t:expect_echo(q, old)
    client:finish()
    upstream:finish()
    q:expect_end { canary = "true", upstream = old.address }
  end)
end)

describe("delay.lua:", function()
  case("connecting and answers are late", function(t)
    local server = t:listen()
    local p, began = policy(t, "delay", server.address), sys.now()
    local client, upstream = t:pair(p, server)
    assert.is_true(sys.now() - began >= 0.1)
    began = sys.now()
    upstream:send "late"
    client:expect "late"
    assert.is_true(sys.now() - began >= 0.05)
  end)
end)

describe("early-talkers.lua:", function()
  local times = { ["PATIENCE, HANG = 5, 60"] = "PATIENCE, HANG = 0.3, 0.1" }

  case("who waits for the greeting gets it", function(t)
    local server = t:listen()
    local client, upstream = t:pair(policy(t, "early-talkers", server.address, times), server)
    upstream:send "220 mail\r\n"
    client:expect "220 mail\r\n"
  end)

  case("who speaks first never reaches the server", function(t)
    local p = policy(t, "early-talkers", t:listen().address, { ["HANG = 5, 60"] = "HANG = 60, 0.1" })
    t:connect(p):send "EHLO a\r\n"
    p:expect_end { reason = "denied", detail = "early_talker", upstream = "-" }
  end)
end)

describe("echo.lua:", function()
  case("a client gets back what it sends", function(t)
    local p = examples.run(t, "echo", { ["127.0.0.1:7007"] = "127.0.0.1:0" })
    local client = t:connect(p):send(("bytes "):rep(50000))
    client:finish()
    client:expect(("bytes "):rep(50000))
    client:expect_eof()
  end)
end)

describe("first-bytes.lua:", function()
  case("the log shows them, and the rest goes by C", function(t)
    local server = t:listen()
    local p = policy(t, "first-bytes", server.address)
    local client, upstream = t:pair(p, server)
    client:send(request .. "more than is shown")
    upstream:expect(request .. "more than is shown")
    p:log "up: 47 45 54 20 .*|GET / HTTP/1%.1%.%.Host: a"
    upstream:send "short"
    client:expect "short"
    upstream:finish()
    p:log "down: 73 68 6f 72 74 |short|"
  end)
end)

describe("hello-rewrite.lua:", function()
  case("hello becomes howdy on its way up", function(t)
    local server = t:listen()
    local client, upstream = t:pair(policy(t, "hello-rewrite", server.address), server)
    client:send "hello, "
    upstream:expect "howdy, "
    upstream:send "hello"
    client:expect "hello"
  end)
end)

describe("maintenance.lua:", function()
  case("the page stands in for a server that is down", function(t)
    local p = policy(t, "maintenance", t:refusing().address)
    local answer = t:connect(p):send(request):read_all()
    assert.matches("^HTTP/1%.1 503 .*\r\n\r\nBack in a few minutes%.\n$", answer)
  end)
end)

describe("port-knocking.lua:", function()
  local function start(t, server)
    return examples.run(t, "port-knocking", { [":7010"] = "127.0.0.1:0", [":7030"] = "127.0.0.1:0",
      [":7020"] = "127.0.0.1:0", [":7022"] = "127.0.0.1:0", ["127.0.0.1:22"] = server.address })
  end

  case("three knocks in order open the port", function(t)
    local server = t:listen()
    local p = start(t, server)
    local one, two, three, ssh = unpack(p.addresses)
    t:connect(ssh):expect_reset()
    for _, knock in ipairs { one, three, two, one, two } do t:connect(knock):expect_reset() end
    t:connect(ssh):expect_reset()
    t:connect(three):expect_reset()
    local client, upstream = t:connect(ssh), t:accept(server)
    upstream:send "SSH-2.0-x\r\n"
    client:expect "SSH-2.0-x\r\n"
  end)
end)

describe("quota-by-hour.lua:", function()
  case("one more than the quota is turned away", function(t)
    local server = t:listen()
    local p = policy(t, "quota-by-hour", server.address, { ["5 or 20"] = "2 or 2" }, "--workers", "2")
    t:expect_echo(p, server)
    local client, upstream = t:expect_echo(p, server)
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "quota" }
    client:finish()
    upstream:finish()
    p:expect_end({ reason = "eof" }, 2)
    t:expect_echo(p, server)
  end)
end)

describe("read-only-postgres.lua:", function()
  local start = "\0\0\0\16\0\3\0\0user\0me\0"

  case("a query that reads passes, one that writes is answered with an error", function(t)
    local server = t:listen()
    local p = policy(t, "read-only-postgres", server.address)
    local client, upstream = t:pair(p, server)
    client:send "\0\0\0\8\4\210\22\47"
    client:expect "N"
    client:send(start .. "Q\0\0\0\13SELECT 1\0")
    upstream:expect(start .. "Q\0\0\0\13SELECT 1\0")
    upstream:send "Z\0\0\0\5I"
    client:expect "Z\0\0\0\5I"
    client:send "Q\0\0\0\16DROP TABLE t\0"
    assert.matches("^E.*C25006%zMonly reading is allowed here%z%z$", (client:read_all()))
    p:expect_end { reason = "closed", refused = "DROP TABLE t" }
  end)
end)

describe("redis-allow-list.lua:", function()
  local ask = "*3\r\n$9\r\nSISMEMBER\r\n$7\r\nallowed\r\n$9\r\n127.0.0.1\r\n"

  case("the set decides, and its answer is remembered", function(t)
    local server, redis = t:listen(), t:listen()
    local p = policy(t, "redis-allow-list", server.address, { ["127.0.0.1:6379"] = redis.address })
    local client, question = t:connect(p), t:accept(redis)
    question:expect(ask)
    question:send ":1\r\n"
    local upstream = t:accept(server)
    client:send "hello"
    upstream:expect "hello"
    t:expect_echo(p, server)
  end)

  case("without Redis nobody is let in", function(t)
    local p = policy(t, "redis-allow-list", t:listen().address, { ["127.0.0.1:6379"] = t:refusing().address })
    t:connect(p):expect_eof()
    p:expect_end { reason = "denied", detail = "no_answer" }
  end)
end)

describe("round-robin.lua:", function()
  case("servers take turns, and one that is down is left out", function(t)
    local one, two, dead = t:listen(), t:listen(), t:refusing()
    local p = policy(t, "round-robin", "-", { ["10.0.0.5:5432"] = one.address, ["10.0.0.6:5432"] = two.address,
      ["10.0.0.7:5432"] = dead.address })
    t:expect_echo(p, one)
    t:expect_echo(p, two)
    t:expect_echo(p, one)
    p:log "refused; not tried for 10 s"
  end)
end)

describe("route-by-time.lua:", function()
  case("the hour decides", function(t)
    local day, night = t:listen(), t:listen()
    local function at(hours)
      return policy(t, "route-by-time", "-", { ['"app.internal:80"'] = ("%q"):format(day.address),
        ['"standby.internal:80"'] = ("%q"):format(night.address), ["hour >= 7 and hour < 20"] = hours })
    end
    t:expect_echo(at "hour >= 0", day)
    t:expect_echo(at "hour < 0", night)
  end)
end)

describe("sniff.lua:", function()
  case("SSH, TLS and HTTP get servers of their own, and others nothing", function(t)
    local http, ssh, tls = t:listen(), t:listen(), t:listen()
    local p = policy(t, "sniff", http.address, { ["127.0.0.1:22"] = ssh.address, ["127.0.0.1:8443"] = tls.address })
    for _, way in ipairs { { "SSH-2.0-x\r\n", ssh }, { "\22\3\1\0\5hello", tls }, { request, http } } do
      t:connect(p):send(way[1])
      t:accept(way[2]):expect(way[1])
    end
    t:connect(p):send("nonsense"):expect_reset()
    p:expect_end { reason = "denied", detail = "unknown_protocol" }
  end)
end)

-- Calls `act` with the path of each example.
local function each_example(act)
  local n = 0
  for name in require("lfs").dir "examples" do
    if name:find "%.lua$" and not name:find "_spec%.lua$" then
      n = n + 1
      act("examples/" .. name)
    end
  end
  assert.is_true(n >= 20)
end

describe("every example", function()
  case("as it is written, is found right by penstock check", function(t)
    each_example(function(path)
      local is_configuration = sys.read_file(path):find "ps%.listen"
      local what = is_configuration and { path } or { "-p", path, "127.0.0.1:0", "127.0.0.1:1" }
      local status, err, out = t:run { "check", unpack(what) }
      assert.equal(0, status, err)
      assert.matches("\nok: %d+ listeners?, 0 warnings\n$", out)
    end)
  end)

  case("has a spec beside it, and a case over sockets", function()
    local tests = sys.read_file "tests/e2e/examples_spec.lua" .. sys.read_file "tests/e2e/example_policies_spec.lua"
    each_example(function(path)
      assert.truthy(sys.read_file((path:gsub("%.lua$", "_spec.lua"))), path .. " has no spec")
      local case_of = ('describe("%s:"'):format(path:match "[^/]+$")
      assert.truthy(tests:find(case_of, 1, true), path .. " has no case over sockets")
    end)
  end)
end)
