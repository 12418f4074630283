-- KEYS[1] lease of a type. ARGV: worker. Ends the lease if it is this worker's.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
