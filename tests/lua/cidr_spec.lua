local cidr = require "penstock.cidr"

local function hex(text)
  local bytes, bits = cidr.parse(text)
  return bytes and (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) .. "/" .. bits or bits
end

describe("networks", function()
  it("have short, long and exact forms", function()
    assert.equal("0a000000/8", hex "10/8")
    assert.equal("c0a80000/16", hex "192.168/16")
    assert.equal("c0000201/32", hex "192.0.2.1")
    assert.equal("00000000/0", hex "0/0")
    assert.equal("00000000000000000000000000000000/0", hex "::/0")
    assert.equal("20010db8000000000000000000000001/128", hex "2001:db8::1")
    assert.equal("20010db8000000000000000000000000/33", hex "2001:db8:0::/33")
    assert.equal("00010002000300040005000600070008/128", hex "1:2:3:4:5:6:7:8")
  end)

  it("that are IPv4-mapped are those of IPv4", function()
    assert.equal("0a000000/8", hex "::ffff:10.0.0.0/104")
    assert.equal("0a000001/32", hex "::ffff:10.0.0.1")
    assert.equal("0a000001/32", hex "::FFFF:0a00:0001")
  end)

  it("are refused with what would be right", function()
    assert.matches('the network is "10.0.0.0/8"', hex "10.1.2.3/8", 1, true)
    assert.matches('the network is "2001:db8:0:0:0:0:0:0/32"', hex "2001:db8::1/32", 1, true)
    assert.matches('the network is "10.1/16"', hex "10.1", 1, true)
    assert.matches("at most 32 bits", hex "10/33", 1, true)
    assert.matches("at most 128 bits", hex "::/129", 1, true)
    for _, wrong in ipairs { "", "/8", "localhost", "10.0.0.256", "010/8", "1.2.3.4.5", "10..1/16", ":::/3", "1:2:3",
      "1::2::3", "1:2:3:4:5:6:7:8:9", "::12345", "::1.2.3" } do
      assert.matches("is no address or network", hex(wrong), 1, true)
    end
    assert.matches("a number stands behind the slash", hex "10/x", 1, true)
    assert.matches("not a number", hex(10), 1, true)
  end)
end)

describe("a lookup", function()
  local function lookup(lists) return cidr.new(lists) end

  it("finds the longest prefix", function()
    local f = lookup { { "a", { "10/8", "10.1.1/24" } }, { "b", { "10.1/16", "10.1.1.7" } } }
    assert.equal("a", f "10.0.0.1")
    assert.equal("b", f "10.1.0.1")
    assert.equal("a", f "10.1.1.6")
    assert.equal("b", f "10.1.1.7")
    assert.is_nil(f "11.0.0.1")
  end)

  it("knows prefixes inside of a byte", function()
    local f = lookup { { "a", { "172.16/12", "2001:db8:8000::/33" } } }
    assert.equal("a", f "172.31.255.255")
    assert.is_nil(f "172.32.0.0")
    assert.equal("a", f "2001:db8:ffff::1")
    assert.is_nil(f "2001:db8:7fff::1")
  end)

  it("takes an IPv4-mapped address for the IPv4 one, and no other for it", function()
    local f = lookup { { "a", { "10/8" } }, { "b", { "::/0" } } }
    assert.equal("a", f "::ffff:10.2.3.4")
    assert.equal("b", f "::a02:304")
    assert.equal("b", f "fe80::1%eth0")
    assert.is_nil(f "11.1.1.1")
  end)

  it("knows UNIX sockets", function()
    assert.equal("a", lookup { { "a", { "unix" } } } "unix")
    assert.is_nil(lookup { { "a", { "0/0", "::/0" } } } "unix")
  end)

  it("refuses what is in both lists", function()
    assert.has_error(function() lookup { { "a", { "10/8" } }, { "b", { "10.0.0.0/8" } } } end,
      '"10.0.0.0/8" is in both lists')
    assert.has_error(function() lookup { { "a", { "unix" } }, { "b", { "unix" } } } end, '"unix" is in both lists')
  end)
end)
