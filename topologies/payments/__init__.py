"""Payments: a worker of the group `order-payment-group` asks a gateway for what orders cost, and says what it answered.

    order-events -> worker: what has to happen with this order? -> gateway -> payments row + outbox row
                                                                                  | relay
    the order is paid, or everything is given back (topologies.orders.saga) <- payment-notifications

1. **Records only say where to look.** What is to be done follows from the order and its payment in the database; a
   record that comes again, late or from a stranger finds nothing left to do.
2. **A payment is asked for by a key of its own** (`order-<id>`), and written down as asked for before it is. Whoever
   dies in between asks again, and gets the same answer: the gateway takes the money of one key once.
3. **Not knowing is not a no.** After a time-out the same is asked again. An order that is not answered for in a minute
   is called off first, in the database, and then the gateway is told to give back whatever it may have taken: whoever
   completes the payment in between finds an order that is called off, and gives it back as well.
4. **Given back when nobody waits for it any more.** An order that is cancelled while its payment is under way, or
   refunded later, has its payment given back, once; a payment that was never asked for is void.

At rest an order is paid exactly if its payment is completed and the gateway holds its amount, and for every other
order the gateway holds nothing.
"""
