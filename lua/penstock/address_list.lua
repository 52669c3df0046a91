-- The policies allow and deny: lists of networks, of which the longest prefix decides.
local at_client = require "penstock.at_client"
local cidr = require "penstock.cidr"
local options = require "penstock.options"
local ps = require "penstock"

-- The networks without a key, and those of `key`.
local function networks(o, values)
  local list = {}
  for key, value in next, values do
    if type(key) == "number" then list[key] = value end
  end
  for i = 1, table.maxn(list) do
    if type(list[i]) ~= "string" then o:fail("networks are a list of texts without gaps") end
  end
  return list
end

-- make(kind, other, reason) -> constructor. `kind` is what the list is, `other` the key of the exceptions.
return function(kind, other, reason)
  local call = ('penstock.policy.%s{ "10/8", %s = { "10.1/16" } }'):format(kind, other)
  return options.constructor(call, { other, "reason", "reset", "hang" }, function(o)
    local listed = networks(o, o.values)
    if #listed == 0 then o:fail("no network is given") end
    local ok, lookup = pcall(cidr.new, { { kind, listed }, { other, o:list(other) or {} } })
    if not ok then o:fail("%s", lookup) end
    local denied = ps.deny {
      reason = o:word("reason", reason), reset = o:flag("reset", false), hang = o:seconds("hang", 0),
    }
    local default = kind == "allow" and "deny" or "allow"
    return {
      accept = at_client.hook(function(conn)
        if (lookup(conn.client.ip) or default) == "deny" then return denied end
      end),
    }
  end, true)
end
