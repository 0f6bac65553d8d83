"""The command side: orders are taken in one database transaction each, and what happened becomes events.

    POST /api/orders -> placing: stock, points, order and outbox row, or nothing    (topologies.orders.placing)
    outbox           -> relay:   to Kafka in order per user, marked when acknowledged
    order-events     -> payment worker: asks the gateway -> payment-notifications
    payments         -> saga:    the order is paid, or everything is given back     (topologies.orders.transitions)

1. **The database decides, Kafka tells.** What is acknowledged to a customer is committed; that it is published is the
   relay's promise, which reads the outbox until Kafka has every row.
2. **Stock and points move only by a conditional update** (`... SET stock = stock - n WHERE stock >= n`): whether a row
   changed decides, so nothing is sold twice however many ask at once. Rows are locked in one order: the user first,
   then the order, then products by id.
3. **One user, one command at a time.** Whatever concerns an order begins with a lock on its user's row
   (`transitions.lock_user`), so outbox ids of one user ascend in the order in which their transactions commit.
4. **An order changes its status once for each step**: `placed -> paid -> refunded` or `placed -> cancelled`, compared
   and set in SQL. Who comes second changes nothing and gives nothing back.
5. **Event ids follow from the order** (`order-<id>-placed`): a row that is published twice is dropped by every reader.
   Nothing that is read back (payments of orders that this database does not know) can change anything.

What was taken equals what is held by orders that are placed or paid, for points and for each product, at any moment.
"""
