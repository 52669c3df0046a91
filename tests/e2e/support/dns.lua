-- A DNS server of the test's own: dnsmasq on a port of 127.0.0.1, which knows what the test tells it.
local net = require "tests.e2e.support.net"

local dns = {}

-- Starts it with more options, such as "--host-record=a.test,127.0.0.1,5". Names under .test that it was not told of do
-- not exist. Returns the process, with `address` for --resolver.
function dns.start(t, options)
  local held = net.listen("127.0.0.1:0", { bound_only = true })
  local port = held.port
  held:close()
  local argv = {
    "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=", "--group=", "--no-resolv",
    "--no-hosts", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--port=" .. port,
  }
  for _, option in ipairs(options) do argv[#argv + 1] = option end
  local server = t:spawn(argv)
  if not server:wait_for("err", "started, version") then error("dnsmasq did not start: " .. server.err, 2) end
  server.address = "127.0.0.1:" .. port
  return server
end

return dns
