"""What customers are told of their orders and payments: group `order-notification-group`.

    order-events, payment-notifications -> a notice for each event -> log, mail, webhook    (channels)
                                                                   -> dead letters, with the reason

1. **At least once, never silently dropped.** An event's offset is committed when every channel has its notice, or has
   refused it and it lies in `order-notification-group.dead-letters`. A process that dies in between sends again what it
   had not committed, under the same id.
2. **One notice has one id for ever**: the event's (`order-1-placed`). It is the mail's Message-ID, the webhook's
   `Idempotency-Key` and a field of the log, by which those at the other end know a repeat. What a producer sent twice
   is told once: the ids of the last records of a partition are known, also after a restart, which reads them again.
3. **In order for each customer.** What is to be tried again holds up what the same customer is to hear after it.
4. **Three ways to fail.** *Away*: the channel itself does not work (nobody listens, it says that it is overloaded, the
   password is wrong). That is no fault of a notice, so everything waits, for as long as it takes, and the group's lag
   shows it; but where others get through and one always finds it away, that counts as a try. *Not now*: this one did
   not get through; it is tried again, each time after a longer while, and after so many tries it is a dead letter.
   *Refused*: it never will; it is a dead letter at once.
5. **Dead letters can be sent again** when their reason is mended: `millrace notify again`.
"""
