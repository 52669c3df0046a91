-- os.time, os.date and os.clock under `penstock test`: they follow the clock that the spec moves.

-- replace(os, now): now() gives the virtual seconds since 1970.
return function(os, now)
  local time, date, start = os.time, os.date, now()

  function os.time(fields)
    if fields then return time(fields) end
    return math.floor(now())
  end

  function os.date(format, at)
    return date(format or "%c", at or math.floor(now()))
  end

  function os.clock()
    return now() - start
  end
end
