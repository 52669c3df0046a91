-- Where a proxy may lead its clients (lua/penstock/destination_rules.lua), with a resolver that the test plays.
local rules = require "penstock.destination_rules"

-- A resolver that knows these names: { ["a.test"] = { "192.0.2.1" } }; it counts its questions.
local function resolver(names)
  local ps = { asked = 0, dns = {} }
  function ps.dns.resolve(name, kind)
    ps.asked = ps.asked + 1
    local found = {}
    for _, ip in ipairs(names[name] or {}) do
      if (ip:find ":" ~= nil) == (kind == "AAAA") then found[#found + 1] = ip end
    end
    if #found > 0 then return found end
    return nil, "dns", "no such name"
  end
  function ps.spawn(f)
    local results = { f() }
    return { wait = function() return unpack(results) end, cancel = function() end }
  end
  return ps
end

local function decide(list, host, port, names)
  local found, why, detail = rules.new(list)(resolver(names or {}), host, port)
  return found and table.concat(found, " ") or why, detail
end

describe("a rule for", function()
  it("a name lets that name through, in any case and with the root's dot, at its port", function()
    local names = { ["www.test"] = { "192.0.2.1" } }
    for _, host in ipairs { "www.test", "WWW.Test", "www.test." } do
      assert.equal("192.0.2.1:443", (decide({ "Www.test:443" }, host, 443, names)))
    end
    assert.equal("not_allowed", (decide({ "www.test:443" }, "www.test", 80, names)))
    assert.equal("not_allowed", (decide({ "www.test:443" }, "a.www.test", 443, names)))
    assert.equal("not_allowed", (decide({ "www.test:443" }, "192.0.2.1", 443, names)))
  end)

  it("all below a name does not hold for the name itself, nor for one that only ends alike", function()
    local names = {
      ["a.lab.test"] = { "192.0.2.1" }, ["b.a.lab.test"] = { "192.0.2.2" }, ["xlab.test"] = { "192.0.2.3" },
      ["lab.test"] = { "192.0.2.4" },
    }
    assert.equal("192.0.2.1:1", (decide({ "*.lab.test:*" }, "a.lab.test", 1, names)))
    assert.equal("192.0.2.2:1", (decide({ "*.lab.test:*" }, "b.a.lab.test", 1, names)))
    assert.equal("not_allowed", (decide({ "*.lab.test:*" }, "lab.test", 1, names)))
    assert.equal("not_allowed", (decide({ "*.lab.test:*" }, "xlab.test", 1, names)))
  end)

  it("ports is one, a range with its ends, or all", function()
    local wants = { [79] = "not_allowed", [80] = "192.0.2.1:80", [90] = "192.0.2.1:90", [91] = "not_allowed" }
    for port, want in pairs(wants) do
      assert.equal(want, (decide({ "192.0.2.1:80-90" }, "192.0.2.1", port)))
    end
    assert.equal("192.0.2.1:65535", (decide({ "192.0.2.1:*" }, "192.0.2.1", 65535)))
    assert.equal("not_allowed", (decide({ "192.0.2.1:*" }, "192.0.2.1", 0)))
  end)

  it("a network holds for addresses and for names that lead into it, also for private ones", function()
    local list = { "10.0.0.0/8:22", "[fd00::/8]:22" }
    assert.equal("10.1.2.3:22", (decide(list, "10.1.2.3", 22)))
    assert.equal("[fd00::1]:22", (decide(list, "fd00::1", 22)))
    assert.equal("10.1.2.3:22 [fd00::1]:22", (decide(list, "db.test", 22, { ["db.test"] = { "10.1.2.3", "fd00::1" } })))
    assert.equal("10.1.2.3:22", (decide(list, "::ffff:10.1.2.3", 22)))
    assert.equal("not_allowed", (decide(list, "192.168.0.1", 22)))
    assert.equal("not_allowed", (decide(list, "out.test", 22, { ["out.test"] = { "192.168.0.1" } })))
  end)

  it("several ports of networks within each other counts for each of them", function()
    local list = { "10.0.0.0/8:22", "10.1.0.0/16:80" }
    assert.equal("10.1.0.1:22", (decide(list, "10.1.0.1", 22)))
    assert.equal("10.1.0.1:80", (decide(list, "10.1.0.1", 80)))
    assert.equal("not_allowed", (decide(list, "10.2.0.1", 80)))
  end)
end)

describe("what only this host or its networks can reach", function()
  local special = { "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.31.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:7f00:1",
    "fe80::1", "fd00::1", "ff02::1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:a00:1::", "2002:7f00:1::1" }

  it("needs a rule that names its network, whatever leads there", function()
    for _, ip in ipairs(special) do
      local word, detail = decide("any", ip, 80)
      assert.equal("private", word, ip)
      assert.matches("no rule names its network", detail)
      assert.equal("private", (decide({ "*:80" }, ip, 80)), ip)
      word, detail = decide({ "evil.test:80" }, "evil.test", 80, { ["evil.test"] = { ip } })
      assert.equal("private", word, ip)
      assert.matches("^evil.test leads to .*, and no rule names that network$", detail)
    end
    assert.equal("127.0.0.1:80", (decide({ "localhost:80", "127.0.0.0/8:80" }, "localhost", 80,
      { localhost = { "127.0.0.1", "::1" } })))
  end)

  it("does not take along the open addresses of the same name", function()
    assert.equal("192.0.2.1:80", (decide("any", "mixed.test", 80, { ["mixed.test"] = { "127.0.0.1", "192.0.2.1" } })))
  end)

  it("is told apart from the open internet", function()
    local open = { "8.8.8.8", "172.32.0.1", "11.0.0.1", "2606:4700::1", "64:ff9b::8.8.8.8", "2002:808:808::1" }
    for _, ip in ipairs(open) do
      assert.is_nil(rules.special_kind(ip), ip)
    end
  end)
end)

describe("a name", function()
  it("that no rule can let through is not looked up", function()
    local ps = resolver { ["a.test"] = { "192.0.2.1" } }
    rules.new { "b.test:80", "10.0.0.0/8:22" }(ps, "a.test", 80)
    assert.equal(0, ps.asked)
    rules.new { "b.test:80", "10.0.0.0/8:22" }(ps, "a.test", 22)
    assert.equal(2, ps.asked)
  end)

  it("that does not resolve is told so", function()
    assert.equal("dns", (decide("any", "nowhere.test", 80)))
  end)

  it("that is none is not looked up either", function()
    local ps = resolver {}
    for _, name in ipairs { "", ".", "a..b", ".a", "a b", "a/b", "a\0.test", "b\195\188.test", ("a"):rep(64) .. ".test",
      ("a."):rep(127) .. "test", "[::1]", "a:b" } do
      assert.same({ nil, "bad_name" }, { rules.new "any"(ps, name, 80) })
    end
    assert.equal(0, ps.asked)
  end)
end)

describe("a rule that makes no sense", function()
  local wrong = {
    ["www.test"] = '"www.test" has no port: write "www.test:443", or "www.test:*" for all ports',
    ["10.0.0.0/8"] = '"10.0.0.0/8" has no port',
    ["www.test:"] = 'the port is a number from 1 to 65535, a range "80-90", or "*" for all',
    ["www.test:0"] = "the port is a number",
    ["www.test:65536"] = "the port is a number",
    ["www.test:90-80"] = "the port is a number",
    ["www.test:https"] = "the port is a number",
    ["2001:db8::/32:443"] = 'an IPv6 network stands in brackets: "[2001:db8::/32]:443"',
    ["10.1.0.0/8:22"] = 'the network is "10.0.0.0/8"',
    ["10/33:22"] = "the prefix has at most 32 bits",
    ["[fe80::zz]:1"] = '"fe80::zz" is no address or network',
    ["300.0.0.1:1"] = '"300.0.0.1" is no address or network',
    ["a.*.b:1"] = '"a.*.b:1" is no destination; write "www.example.com:443"',
    ["*x.b:1"] = "is no destination",
    [":1"] = "is no destination",
  }

  it("is refused with what would be right", function()
    for text, right in pairs(wrong) do
      local ok, why = pcall(rules.new, { text })
      assert.is_false(ok, text)
      assert.matches(right, why, 1, true)
      assert.is_nil(why:find "^[^ ]*%.lua:")
    end
  end)
end)
