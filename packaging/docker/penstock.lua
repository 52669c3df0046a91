-- The configuration of the image. Put one of your own over it (as compose.yaml does) that keeps the listener "health".
local ps = require "penstock"

-- For HEALTHCHECK, inside of the container only.
ps.listen {
  name = "health", bind = "127.0.0.1:9180",
  policy = { serve = function(_, client) client:write "ok\n" end },
}
