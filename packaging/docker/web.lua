-- The configuration of compose.yaml.
local ps = require "penstock"

ps.listen {
  name = "web", bind = ":8080", to = "web:80",
  limits = { per_ip = 100 }, timeouts = { connect = "2s", idle = "10m" },
}

ps.listen {
  name = "health", bind = "127.0.0.1:9180",
  policy = { serve = function(_, client) client:write "ok\n" end },
}
