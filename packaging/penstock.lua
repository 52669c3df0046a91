-- The configuration of the service penstock: penstock.lua(5). After a change:
--   penstock check /etc/penstock/penstock.lua && systemctl reload penstock
local ps = require "penstock"

-- For the start: something that answers, and only to this machine's root and the group penstock.
--   socat - UNIX-CONNECT:/run/penstock/hello
ps.listen {
  name = "hello", bind = "unix:/run/penstock/hello",
  policy = {
    serve = function(_, client) client:write "penstock runs: /etc/penstock/penstock.lua says what it does\n" end,
  },
}

-- A listener looks so:
-- ps.listen {
--   name = "db", bind = "127.0.0.1:5432", to = { "db1.internal:5432", "db2.internal:5432" },
--   limits = { per_ip = 20 }, timeouts = { connect = "2s" },
-- }
