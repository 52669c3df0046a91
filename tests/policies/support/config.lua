-- A configuration: two listeners, one of them with a policy.
local ps = require "penstock"

ps.listen {
  name = "redis",
  bind = ":6379",
  to = "redis.internal:6379",
  limits = { per_ip = 1 },
}
ps.listen {
  name = "shout",
  bind = { "127.0.0.1:7000", "unix:/run/shout.sock" },
  to = "app.internal:80",
  timeouts = { idle = 5 },
  policy = {
    data = function(_, dir, chunk)
      if dir == "up" then return chunk:upper() end
    end,
  },
}
